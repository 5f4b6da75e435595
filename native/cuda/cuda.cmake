# The CUDA backend, where nvcc is found: each native/cuda/*.cu becomes a fat binary (machine code for
# ALTIPLANO_CUDA_ARCHITECTURES and PTX for later GPUs), which the addon embeds and hands to the driver.
# Neither CMake's CUDA language nor the CUDA runtime library is used: host code is ordinary C++ over the
# driver's API. Without nvcc this is a CPU build, and says so.
#
# ALTIPLANO_CUDA=0 and ALTIPLANO_CUDA_ARCHITECTURES may also stand in the environment, for builds through
# npm.
option(ALTIPLANO_CUDA "Build the CUDA backend if nvcc is found" ON)
set(ALTIPLANO_CUDA_ARCHITECTURES "" CACHE STRING
  "Compute capabilities that get machine code, e.g. 80;86;89;90. Default: those of the GPUs present, else 80")

set(altiplano_least_nvcc 13.0)
set(altiplano_cuda_folder ${CMAKE_CURRENT_LIST_DIR})

# Sets altiplano_nvcc, or altiplano_no_cuda to the reason.
function(altiplano_find_nvcc)
  set(altiplano_no_cuda "" PARENT_SCOPE)
  if(NOT ALTIPLANO_CUDA OR "$ENV{ALTIPLANO_CUDA}" MATCHES "^(0|OFF|off)$")
    set(altiplano_no_cuda "switched off" PARENT_SCOPE)
    return()
  endif()
  if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    set(altiplano_no_cuda "only on Linux" PARENT_SCOPE)
    return()
  endif()
  file(GLOB installed LIST_DIRECTORIES true /usr/local/cuda-*)
  list(SORT installed COMPARE NATURAL ORDER DESCENDING)
  list(TRANSFORM installed APPEND /bin)
  find_program(ALTIPLANO_NVCC nvcc
    HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin PATHS /usr/local/cuda/bin ${installed})
  if(NOT ALTIPLANO_NVCC)
    set(altiplano_no_cuda "nvcc was not found" PARENT_SCOPE)
    return()
  endif()
  execute_process(COMMAND ${ALTIPLANO_NVCC} --version OUTPUT_VARIABLE text ERROR_QUIET)
  if(NOT text MATCHES "release ([0-9.]+)" OR CMAKE_MATCH_1 VERSION_LESS altiplano_least_nvcc)
    set(altiplano_no_cuda "${ALTIPLANO_NVCC} is older than ${altiplano_least_nvcc}" PARENT_SCOPE)
    return()
  endif()
  # Where cuda.h lies: nvcc may be a link or a script, and tells where its toolkit is.
  execute_process(COMMAND ${ALTIPLANO_NVCC} -dryrun kernel.cu OUTPUT_VARIABLE text ERROR_VARIABLE text)
  string(REGEX MATCH "TOP=([^\n]+)" top "${text}")
  set(top "${CMAKE_MATCH_1}")
  find_path(ALTIPLANO_CUDA_INCLUDE cuda.h NO_DEFAULT_PATH
    HINTS ${top}/include ${top}/targets/x86_64-linux/include ${top}/targets/sbsa-linux/include)
  if(NOT ALTIPLANO_CUDA_INCLUDE)
    set(altiplano_no_cuda "cuda.h was not found beside ${ALTIPLANO_NVCC}" PARENT_SCOPE)
  endif()
endfunction()

# The compute capabilities of the GPUs present, none older than 80; 80 where there is none.
function(altiplano_cuda_architectures result)
  if(ALTIPLANO_CUDA_ARCHITECTURES)
    set(${result} ${ALTIPLANO_CUDA_ARCHITECTURES} PARENT_SCOPE)
    return()
  endif()
  if(DEFINED ENV{ALTIPLANO_CUDA_ARCHITECTURES})
    set(${result} $ENV{ALTIPLANO_CUDA_ARCHITECTURES} PARENT_SCOPE)
    return()
  endif()
  set(found "")
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE text ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]+" found "${text}")
    list(TRANSFORM found REPLACE "\\." "")
    list(REMOVE_DUPLICATES found)
    list(FILTER found EXCLUDE REGEX "^[1-7].$")
    # Of a GPU that is newer than the compiler the driver compiles the PTX.
    execute_process(COMMAND ${ALTIPLANO_NVCC} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET)
    foreach(architecture IN LISTS found)
      if(NOT known MATCHES "sm_${architecture}\n")
        list(REMOVE_ITEM found ${architecture})
      endif()
    endforeach()
  endif()
  if(NOT found)
    set(found 80)
  endif()
  set(${result} ${found} PARENT_SCOPE)
endfunction()

# What nvcc is called with for such architectures. The PTX stays uncompressed: the simulator of the
# tests reads it.
function(altiplano_fatbin_flags result architectures)
  set(flags -fatbin -std=c++20 -O3 -I${altiplano_cuda_folder}/.. -Xfatbin -compress-mode=none
    --expt-relaxed-constexpr --allow-unsupported-compiler -gencode arch=compute_80,code=compute_80)
  foreach(architecture IN LISTS architectures)
    list(APPEND flags -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  set(${result} ${flags} PARENT_SCOPE)
endfunction()

# Adds the backend to a library.
function(altiplano_add_cuda target)
  altiplano_find_nvcc()
  if(altiplano_no_cuda)
    message(STATUS "altiplano: built for the CPU only (CUDA: ${altiplano_no_cuda})")
    target_compile_definitions(${target} PUBLIC "ALTIPLANO_NO_CUDA=\"${altiplano_no_cuda}\"")
    return()
  endif()
  altiplano_cuda_architectures(architectures)
  message(STATUS "altiplano: CUDA kernels for ${architectures} with ${ALTIPLANO_NVCC}")

  altiplano_fatbin_flags(flags "${architectures}")

  file(GLOB kernels CONFIGURE_DEPENDS ${altiplano_cuda_folder}/*.cu)
  file(GLOB headers CONFIGURE_DEPENDS ${altiplano_cuda_folder}/*.cuh)
  set(folder ${CMAKE_BINARY_DIR}/cuda)
  file(MAKE_DIRECTORY ${folder})
  set(binaries "")
  set(embedded_assembly "")
  set(embedded_table "")
  foreach(kernel IN LISTS kernels)
    get_filename_component(name ${kernel} NAME_WE)
    set(binary ${folder}/${name}.fatbin)
    # What a kernel includes is found by nvcc itself, so that only what changed is compiled again.
    if(CMAKE_VERSION VERSION_GREATER_EQUAL 3.21)
      set(dependencies DEPENDS ${kernel} DEPFILE ${binary}.d)
    else()
      set(dependencies DEPENDS ${kernel} ${headers})
    endif()
    add_custom_command(OUTPUT ${binary}
      COMMAND ${ALTIPLANO_NVCC} ${flags} -MD -MF ${binary}.d -MT ${binary} -o ${binary} ${kernel}
      ${dependencies}
      COMMENT "Compiling native/cuda/${name}.cu" VERBATIM)
    list(APPEND binaries ${binary})
    string(APPEND embedded_assembly
      "asm(\".pushsection .rodata\\n.balign 16\\n.hidden altiplano_cuda_${name}\\n\"\n"
      "    \".globl altiplano_cuda_${name}\\naltiplano_cuda_${name}:\\n\"\n"
      "    \".incbin \\\"${binary}\\\"\\n.popsection\\n\");\n"
      "extern \"C\" __attribute__((visibility(\"hidden\"))) const char altiplano_cuda_${name}[];\n")
    string(APPEND embedded_table "    {\"${name}\", altiplano_cuda_${name}},\n")
  endforeach()
  configure_file(${altiplano_cuda_folder}/embedded.cc.in ${folder}/embedded.cc @ONLY)
  set_source_files_properties(${folder}/embedded.cc PROPERTIES OBJECT_DEPENDS "${binaries}")

  file(GLOB sources CONFIGURE_DEPENDS ${altiplano_cuda_folder}/*.cc)
  target_sources(${target} PRIVATE ${sources} ${folder}/embedded.cc)
  target_include_directories(${target} SYSTEM PRIVATE ${ALTIPLANO_CUDA_INCLUDE})
  target_compile_definitions(${target} PUBLIC ALTIPLANO_CUDA)
  target_link_libraries(${target} PUBLIC ${CMAKE_DL_LIBS})
endfunction()
