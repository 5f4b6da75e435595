// What ptxas made of kernels, read from a cubin.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace ptx_simulator::driver {

// Registers per thread of each kernel in an ELF file: the high byte of the info field of its
// section .text.NAME (not documented; seen in nvcc 13's output, and equal to what `ptxas -v`
// prints). Empty for what is no such file.
std::map<std::string, int> registers_of(std::string_view elf);

}  // namespace ptx_simulator::driver
