// Decoding functions that stand in a table of another file than their own.
#pragma once

#include "machine/decoder.h"

namespace ptx_simulator {

// bits.cc, in the table of integer.cc
void decode_and(Decoder& d);
void decode_or(Decoder& d);
void decode_xor(Decoder& d);
void decode_not(Decoder& d);
void decode_cnot(Decoder& d);
void decode_lop3(Decoder& d);
void decode_shl(Decoder& d);
void decode_shr(Decoder& d);
void decode_shf(Decoder& d);
void decode_popc(Decoder& d);
void decode_clz(Decoder& d);
void decode_bfind(Decoder& d);
void decode_fns(Decoder& d);
void decode_brev(Decoder& d);
void decode_bfe(Decoder& d);
void decode_bfi(Decoder& d);
void decode_szext(Decoder& d);
void decode_bmsk(Decoder& d);

// compare.cc, for all types: in the tables of integer.cc and float.cc
void decode_setp(Decoder& d);
void decode_set(Decoder& d);
void decode_slct(Decoder& d);
void decode_testp(Decoder& d);

// approximate.cc, in the table of float.cc: what need not be rounded correctly
void decode_approximate_div(Decoder& d);
void decode_approximate_rcp(Decoder& d);
void decode_approximate_sqrt(Decoder& d);
void decode_rsqrt(Decoder& d);
void decode_sin(Decoder& d);
void decode_cos(Decoder& d);
void decode_lg2(Decoder& d);
void decode_ex2(Decoder& d);   // of halves too
void decode_tanh(Decoder& d);  // likewise

}  // namespace ptx_simulator
