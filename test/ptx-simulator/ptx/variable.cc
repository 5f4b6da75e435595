// Variables, parameters, and the values they begin with.
#include <algorithm>
#include <bit>
#include <cstring>

#include "ptx/parser.h"

namespace ptx_simulator {
namespace {

// Sizes are checked so that damaged text cannot ask for all memory. A device has less than 2^40
// bytes; an initial value is at least two characters of text for each element that is not zero.
constexpr uint64_t kMostBytes = uint64_t{1} << 40;
constexpr uint64_t kMostInitialBytes = uint64_t{1} << 28;
constexpr size_t kMostDimensions = 8;

}  // namespace

int Parser::parse_alignment() {
  const uint64_t alignment = expect_integer("an alignment", 1 << 16);
  if (!std::has_single_bit(alignment)) fail("an alignment that is no power of two");
  return static_cast<int>(alignment);
}

// .align 4 .attribute(.managed) .v4 .f32, in any order; the type is the last.
Variable Parser::parse_variable_type(StateSpace space) {
  Variable variable;
  variable.space = space;
  variable.line = line();
  int alignment = 0;
  uint64_t vector = 1;
  while (true) {
    if (token().kind != Token::Kind::kDotted) unexpected("a type");
    if (const std::optional<Type> type = type_named(token().text)) {
      if (*type == Type::kPred) fail("a variable of predicates");
      variable.type = *type;
      lexer_.advance();
      break;
    }
    if (take_dotted("align")) {
      alignment = parse_alignment();
    } else if (take_dotted("attribute")) {
      skip_parentheses();
    } else if (take_dotted("v2")) {
      vector = 2;
    } else if (take_dotted("v4")) {
      vector = 4;
    } else {
      unexpected("a type");
    }
  }
  variable.size_bytes = vector * static_cast<uint64_t>(bits_of(variable.type)) / 8;
  variable.alignment = alignment != 0 ? alignment : static_cast<int>(variable.size_bytes);
  return variable;
}

std::vector<uint64_t> Parser::parse_variable_name(Variable& variable) {
  variable.line = line();
  variable.name = expect_name("the name of a variable");
  std::vector<uint64_t> dimensions;
  while (take("[")) {
    uint64_t extent = 0;  // [] has the extent of its value, or of a launch
    if (!token().is("]")) {
      const int64_t value = parse_integer_constant();
      if (value < 0 || static_cast<uint64_t>(value) > kMostBytes)
        fail("an array that is too large");
      extent = static_cast<uint64_t>(value);
    } else if (!dimensions.empty()) {
      fail("only the first extent of an array may be left out");
    }
    expect("]");
    dimensions.push_back(extent);
    if (dimensions.size() > kMostDimensions) fail("an array of too many dimensions");
    if (extent != 0 && variable.size_bytes > kMostBytes / extent)
      fail("an array that is too large");
    variable.size_bytes *= extent;
  }
  return dimensions;
}

void Parser::parse_variables(StateSpace space, bool is_extern,
                             const std::function<void(Variable)>& add) {
  const Variable shape = parse_variable_type(space);
  const uint64_t element = static_cast<uint64_t>(bits_of(shape.type)) / 8;
  do {
    Variable variable = shape;
    variable.is_extern = is_extern;
    std::vector<uint64_t> dimensions = parse_variable_name(variable);
    if (take("=")) {
      if (shape.size_bytes > element) dimensions.push_back(shape.size_bytes / element);  // .v4
      if (space == StateSpace::kShared || space == StateSpace::kParam || is_extern) {
        fail("an initial value that nobody would write");
      }
      parse_initial(variable, std::move(dimensions));
    }
    add(std::move(variable));
  } while (take(","));
  expect(";");
}

void Parser::parse_initial(Variable& variable, std::vector<uint64_t> dimensions) {
  if (dimensions.empty()) {
    parse_initial_value(variable, 0);
  } else {
    const uint64_t element = static_cast<uint64_t>(bits_of(variable.type)) / 8;
    const bool unsized = dimensions[0] == 0;
    // The extent that is left out: as many as there are values.
    if (unsized) dimensions[0] = kMostInitialBytes;
    uint64_t count = 1;
    for (uint64_t extent : dimensions) {
      if (extent != 0 && count > kMostBytes / extent) fail("an array that is too large");
      count *= extent;
    }
    parse_initial_list(variable, dimensions, 0, 0, count);
    if (unsized) {
      const uint64_t row = std::max<uint64_t>(count / dimensions[0] * element, 1);
      variable.size_bytes = (variable.initial.size() + row - 1) / row * row;
    }
  }
  if (variable.size_bytes > kMostInitialBytes) fail("an initial value that is too large");
  variable.initial.resize(variable.size_bytes);
}

void Parser::parse_initial_list(Variable& variable, const std::vector<uint64_t>& dimensions,
                                size_t level, uint64_t first, uint64_t count) {
  expect("{");
  uint64_t index = first;
  const uint64_t row = dimensions[level] == 0 ? 0 : count / dimensions[level];
  while (!token().is("}")) {
    if (index >= first + count) fail("more values than the array has elements");
    if (token().is("{")) {
      if (level + 1 >= dimensions.size()) fail("more braces than the array has dimensions");
      // Behind a row that was not filled the next one begins.
      if ((index - first) % row != 0) index += row - (index - first) % row;
      if (index >= first + count) fail("more values than the array has elements");
      parse_initial_list(variable, dimensions, level + 1, index, row);
      index += row;
    } else {
      parse_initial_value(variable, index++);
    }
    if (!take(",")) break;
  }
  expect("}");
}

// name, generic(name), each with an offset.
Variable::Reference Parser::parse_reference(uint64_t offset) {
  Variable::Reference reference{offset, "", 0, false};
  reference.symbol = expect_name("a name");
  if (reference.symbol == "generic" && take("(")) {
    reference.generic = true;
    reference.symbol = expect_name("the name of a variable");
    reference.addend = parse_offset();
    expect(")");
  }
  reference.addend += parse_offset();
  return reference;
}

// 0xFF(x), 0xFF00(x), ...: the bytes of an address, for one that is not aligned. All eight of them
// in order make an address; anything else cannot be told before addresses are known.
void Parser::parse_masked_address(Variable& variable, uint64_t offset, uint64_t mask) {
  const int at = line();
  expect("(");
  const Variable::Reference reference = parse_reference(offset);
  expect(")");
  if (mask == 0xff) {
    variable.references.push_back(reference);
    return;
  }
  const auto fits = [&](const Variable::Reference& begun) {
    const uint64_t byte = offset - begun.offset;
    return byte < 8 && mask == uint64_t{0xff} << (8 * byte) && begun.symbol == reference.symbol &&
           begun.addend == reference.addend && begun.generic == reference.generic;
  };
  if (variable.references.empty() || !fits(variable.references.back())) {
    throw PtxError(at, "bytes of an address that are not all eight in order");
  }
}

void Parser::parse_initial_value(Variable& variable, uint64_t index) {
  const uint64_t element = static_cast<uint64_t>(bits_of(variable.type)) / 8;
  const uint64_t offset = index * element;
  if (offset + element > kMostInitialBytes) fail("an initial value that is too large");
  if (variable.initial.size() < offset + element) variable.initial.resize(offset + element);
  if (token().kind == Token::Kind::kName && !token().is_name("WARP_SZ")) {
    if (element != 8) fail("an address in a variable that does not have 64 bits");
    variable.references.push_back(parse_reference(offset));
    return;
  }
  const int at = line();
  const Constant value = parse_constant();
  if (token().is("(") && !value.is_float && element == 1) {
    return parse_masked_address(variable, offset, value.bits);
  }
  const uint64_t bits = bits_as(value, variable.type, at);
  std::memcpy(&variable.initial[offset], &bits, element);
}

}  // namespace ptx_simulator
