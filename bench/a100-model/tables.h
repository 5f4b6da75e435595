// What a100_model prints.
#pragma once

#include "model_backend.h"

namespace altiplano::a100 {

// The matrices of all layers, each with its launch.
struct LayersTime {
  double fixed = 0, waiting = 0, hidden = 0, operations = 0;
  double seconds() const { return fixed + waiting; }
  double apart() const { return seconds() + hidden; }
  double rate() const { return operations / seconds() * 1e-12; }  // TFLOP/s
};
LayersTime layers_time(const Model& model, const Scheme& scheme, int64_t tokens);

// Engines whose speed is published: what the constants make of their bytes, launches and
// arithmetic. Their kernels load weights into registers, turn each into a float there, and then
// multiply: the check takes loading and computing one after the other. Ours copy asynchronously and
// overlap both.
struct Anchor {
  const char* name;
  double bytes;  // of weights that a token reads
  double kv;     // bytes of keys and values
  int layer_kernels;
  int step_kernels;
  double weights;    // that a token is multiplied with
  double lanes;      // of them a multiprocessor and cycle, in its busiest unit
  double published;  // tokens a second
  double predicted() const;
  double overlapped() const;  // if loading hid the arithmetic entirely
  double error() const { return predicted() / published - 1; }
};

void print_matmul_tables();
void print_decode_table();
void print_prefill_table();
void print_parts();
void print_launches();
void print_anchors();
void print_published();
void print_goals();
void print_attention();

}  // namespace altiplano::a100
