/**
 * What ptxas made of each CUDA kernel: registers, stack, spills, shared memory, and how often each
 * machine instruction stands in the code. Reads cubins, fat binaries, and whatever holds one (an
 * addon, a library) itself, since no disassembler comes with the compiler alone.
 *
 *   node scripts/machine-code.mjs FILE... [--json] [--ptxas-log FILE] [--budgets FILE]
 *
 * Spills are only told by `ptxas -v`, whose output --ptxas-log names. With --budgets, the exit status
 * says whether every kernel keeps to its budget ({@link budgetProblems}).
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const elfMagic = 0x464c457f;
const fatbinMagic = 0xba55ed50;
const machineCuda = 190;

/**
 * Instructions of sm_70 to sm_90 by the low nine bits of their first word; the three above say where
 * the operands come from (HMMA is 0x23c, IMMA 0x237, LDSM 0x83b, LDGSTS 0xfae). The names are those
 * of NVIDIA's disassembler. test/machine-code.test.ts checks them on PTX whose code is known.
 */
const instructions = new Map([
  [0x009, 'FMNMX'],
  [0x00c, 'ISETP'],
  [0x010, 'IADD3'],
  [0x012, 'LOP3'],
  [0x016, 'PRMT'],
  [0x020, 'FMUL'],
  [0x021, 'FADD'],
  [0x023, 'FFMA'],
  [0x024, 'IMAD'],
  [0x026, 'IDP'],
  [0x02b, 'DFMA'],
  [0x030, 'HADD2'],
  [0x031, 'HFMA2'],
  [0x032, 'HMUL2'],
  [0x037, 'IMMA'],
  [0x03b, 'LDSM'],
  [0x03c, 'HMMA'],
  [0x106, 'I2F'],
  [0x105, 'F2I'],
  [0x108, 'MUFU'],
  [0x11d, 'BAR'],
  [0x147, 'BRA'],
  [0x14d, 'EXIT'],
  [0x181, 'LDG'],
  [0x182, 'LDC'],
  [0x183, 'LDL'],
  [0x184, 'LDS'],
  [0x186, 'STG'],
  [0x187, 'STL'],
  [0x188, 'STS'],
  [0x189, 'SHFL'],
  [0x18e, 'RED'],
  [0x1a8, 'ATOMG'],
  [0x1ae, 'LDGSTS'],
  [0x1af, 'LDGDEPBAR'],
]);

/** Bytes that refuse to be read beyond their end. */
class Bytes {
  constructor(buffer, what) {
    this.buffer = buffer;
    this.what = what;
  }
  get length() {
    return this.buffer.length;
  }
  #check(offset, size) {
    if (offset < 0 || size < 0 || offset + size > this.length) {
      throw new Error(`${this.what} is damaged: ${size} bytes at ${offset} of ${this.length}`);
    }
  }
  u8(offset) {
    this.#check(offset, 1);
    return this.buffer.readUInt8(offset);
  }
  u16(offset) {
    this.#check(offset, 2);
    return this.buffer.readUInt16LE(offset);
  }
  u32(offset) {
    this.#check(offset, 4);
    return this.buffer.readUInt32LE(offset);
  }
  u64(offset) {
    this.#check(offset, 8);
    const value = this.buffer.readBigUInt64LE(offset);
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new Error(`${this.what} is damaged: ${value}`);
    return Number(value);
  }
  part(offset, size, what = this.what) {
    this.#check(offset, size);
    return new Bytes(this.buffer.subarray(offset, offset + size), what);
  }
  /** The text at `offset` up to a zero. */
  text(offset) {
    this.#check(offset, 1);
    const end = this.buffer.indexOf(0, offset);
    if (end < 0) throw new Error(`${this.what} is damaged: text at ${offset} has no end`);
    return this.buffer.toString('latin1', offset, end);
  }
}

/** The fat binaries in a file: of each, its entries for a GPU. */
function fatbinsOf(file, name) {
  const magic = Buffer.alloc(4);
  magic.writeUInt32LE(fatbinMagic);
  const fatbins = [];
  for (let at = file.buffer.indexOf(magic); at >= 0; at = file.buffer.indexOf(magic, at)) {
    // The magic number also stands in the small structure that points to a fat binary, and may be
    // anything in a program's code: version 1 and a header of 16 bytes must follow.
    if (file.length - at < 16 || file.u16(at + 4) !== 1 || file.u16(at + 6) !== 16) {
      at += 4;
      continue;
    }
    const content = file.part(at + 16, file.u64(at + 8), 'the fat binary');
    const entries = [];
    for (let entry = 0; entry < content.length; ) {
      const [kind, headerSize] = [content.u16(entry), content.u32(entry + 4)];
      const size = content.u64(entry + 8);
      if (headerSize < 64) throw new Error(`the fat binary is damaged: header of ${headerSize}`);
      entries.push({
        kind: kind === 2 ? 'sm' : 'compute',
        target: content.u32(entry + 28),
        isCompressed: content.u64(entry + 56) !== 0,
        payload: content.part(entry + headerSize, size, `code in ${name}`),
      });
      entry += headerSize + size;
    }
    fatbins.push(entries);
    at += 16 + content.length;
  }
  return fatbins;
}

/** The cubins in a file: the file itself, or those of the fat binaries that it holds. */
function cubinsOf(file, name) {
  if (file.length >= 64 && file.u32(0) === elfMagic && file.u16(18) === machineCuda) return [file];
  const fatbins = fatbinsOf(file, name);
  if (fatbins.length === 0) throw new Error(`${name} holds no CUDA machine code`);
  const cubins = fatbins.flat().filter(({ kind }) => kind === 'sm');
  if (cubins.some(({ isCompressed }) => isCompressed)) {
    throw new Error(`${name} is compressed: build it with -Xfatbin -compress-mode=none`);
  }
  return cubins.map(({ payload }) => payload);
}

/**
 * What each of the fat binaries in a file has code for: `sm_80` is machine code, `compute_80` PTX, and
 * both stand for themselves only if they are not compressed.
 * @returns {string[][]}
 */
export function fatbinTargets(buffer, name = 'the file') {
  return fatbinsOf(new Bytes(buffer, name), name).map((entries) =>
    entries.map((e) => `${e.kind}_${e.target}${e.isCompressed ? ', compressed' : ''}`).sort(),
  );
}

function sectionsOf(elf) {
  if (elf.u32(0) !== elfMagic || elf.u8(4) !== 2 || elf.u16(18) !== machineCuda) {
    throw new Error(`${elf.what} is no 64-bit ELF file for CUDA`);
  }
  const [table, entrySize] = [elf.u64(0x28), elf.u16(0x3a)];
  const [count, names] = [elf.u16(0x3c), elf.u16(0x3e)];
  if (entrySize !== 64) throw new Error(`${elf.what} is damaged: section headers of ${entrySize}`);
  const sections = [];
  for (let i = 0; i < count; ++i) {
    const header = elf.part(table + i * 64, 64);
    const [type, size] = [header.u32(4), header.u64(32)];
    sections.push({
      nameOffset: header.u32(0),
      info: header.u32(44),
      size,
      content: type === 8 ? undefined : elf.part(header.u64(24), size), // 8: NOBITS
    });
  }
  const texts = sections[names]?.content;
  if (texts === undefined) throw new Error(`${elf.what} is damaged: no names of sections`);
  for (const section of sections) section.name = texts.text(section.nameOffset);
  return sections;
}

/** Attributes of .nv.info sections: [attribute, content], content empty for those of one word. */
function* attributesOf(info) {
  for (let at = 0; at < info.length; ) {
    const [format, attribute] = [info.u8(at), info.u8(at + 1)];
    if (format < 1 || format > 4) throw new Error(`${info.what} is damaged: attribute at ${at}`);
    const size = format === 4 ? info.u16(at + 2) : 0;
    yield [attribute, info.part(at + 4, size)];
    at += 4 + size;
  }
}

/** Attributes that give a number for a symbol. */
const registerCount = 0x2f;
const frameSize = 0x11;

function kernelsOfCubin(elf) {
  const sections = sectionsOf(elf);
  const find = (name) => sections.find((section) => section.name === name);
  const symbols = find('.symtab')?.content;
  const names = find('.strtab')?.content;
  const info = find('.nv.info')?.content;
  if (!symbols || !names || !info) throw new Error(`${elf.what} is damaged: a section is missing`);
  const numbers = { [registerCount]: new Map(), [frameSize]: new Map() };
  for (const [attribute, content] of attributesOf(info)) {
    if (attribute in numbers) {
      const name = names.text(symbols.u32(content.u32(0) * 24));
      numbers[attribute].set(name, content.u32(4));
    }
  }
  return sections
    .filter((section) => section.name.startsWith('.text.'))
    .map((section) => {
      const name = section.name.slice('.text.'.length);
      if (!section.content || section.size % 16 !== 0) {
        throw new Error(`${elf.what} is damaged: code of ${section.size} bytes`);
      }
      const opcodes = {};
      for (let at = 0; at < section.size; at += 16) {
        const opcode = section.content.u16(at) & 0x1ff;
        const mnemonic = instructions.get(opcode) ?? `0x${opcode.toString(16).padStart(3, '0')}`;
        opcodes[mnemonic] = (opcodes[mnemonic] ?? 0) + 1;
      }
      return {
        name,
        registers: numbers[registerCount].get(name) ?? section.info >>> 24,
        stackBytes: numbers[frameSize].get(name) ?? 0,
        staticSharedBytes: find(`.nv.shared.${name}`)?.size ?? 0,
        instructions: section.size / 16,
        opcodes: Object.fromEntries(Object.entries(opcodes).sort(([a], [b]) => (a < b ? -1 : 1))),
      };
    });
}

/**
 * @param {Buffer} buffer a cubin, a fat binary, or a file that holds fat binaries
 * @param {string} name of the file, for messages
 * @returns {object[]} one for each kernel and function
 * @throws {Error} for a file that is damaged or holds no machine code
 */
export function machineCode(buffer, name = 'the file') {
  return cubinsOf(new Bytes(buffer, name), name).flatMap(kernelsOfCubin);
}

/**
 * @param {string} log what `ptxas -v` printed
 * @returns {Map<string, {registers: number, stackBytes: number, spillBytes: number}>} by kernel
 */
export function ptxasLog(log) {
  const kernels = new Map();
  let kernel;
  for (const line of log.split('\n')) {
    const name = /Compiling entry function '([^']+)'/.exec(line)?.[1];
    if (name !== undefined) {
      kernel = {};
      kernels.set(name, kernel);
    }
    if (kernel === undefined) continue;
    const stack = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill/.exec(line);
    if (stack !== null) {
      kernel.stackBytes = Number(stack[1]);
      kernel.spillBytes = Number(stack[2]) + Number(stack[3]);
    }
    const registers = /Used (\d+) registers/.exec(line);
    if (registers !== null) kernel.registers = Number(registers[1]);
  }
  return kernels;
}

/** How many blocks of a kernel fit on one multiprocessor of an A100. */
export function residentBlocks({ registers, sharedBytes, threads }) {
  const warps = Math.ceil(threads / 32);
  // Registers are given out to warps in pieces of 256, shared memory to blocks in pieces of 128
  // bytes after 1 KB for the system.
  const byRegisters = Math.floor(65536 / (Math.ceil((registers * 32) / 256) * 256) / warps);
  const byShared = Math.floor((164 * 1024) / (Math.ceil(sharedBytes / 128) * 128 + 1024));
  return Math.min(32, Math.floor(64 / warps), byRegisters, byShared);
}

/**
 * Compares kernels with a table of budgets, by kernel:
 *
 *   { "gemm": { "registers": 128, "stackBytes": 0, "staticSharedBytes": 0, "spillBytes": 0,
 *               "threads": 128, "dynamicSharedBytes": 32768, "residentBlocks": 4,
 *               "opcodes": { "HMMA": [16, 16], "LDL": [0, 0] } } }
 *
 * Numbers are the most that is allowed; of residentBlocks the least (computed from threads and
 * dynamicSharedBytes, which the host code chooses); of opcodes least and most.
 *
 * @returns {string[]} what is over budget, not in the table, or only in the table
 */
export function budgetProblems(kernels, budgets) {
  const problems = [];
  for (const kernel of kernels) {
    const budget = budgets[kernel.name];
    if (budget === undefined) {
      problems.push(`${kernel.name}: has no budget`);
      continue;
    }
    for (const key of ['registers', 'stackBytes', 'staticSharedBytes', 'spillBytes']) {
      if (budget[key] === undefined || kernel[key] === undefined) continue;
      if (kernel[key] > budget[key]) {
        problems.push(`${kernel.name}: ${key} ${kernel[key]}, budget ${budget[key]}`);
      }
    }
    if (budget.residentBlocks !== undefined) {
      const sharedBytes = kernel.staticSharedBytes + (budget.dynamicSharedBytes ?? 0);
      const blocks = residentBlocks({
        registers: kernel.registers,
        sharedBytes,
        threads: budget.threads,
      });
      if (blocks < budget.residentBlocks) {
        problems.push(`${kernel.name}: ${blocks} resident blocks, wanted ${budget.residentBlocks}`);
      }
    }
    for (const [mnemonic, [least, most]] of Object.entries(budget.opcodes ?? {})) {
      const count = kernel.opcodes[mnemonic] ?? 0;
      if (count < least || count > most) {
        problems.push(`${kernel.name}: ${count} ${mnemonic}, budget ${least} to ${most}`);
      }
    }
  }
  for (const name of Object.keys(budgets)) {
    if (!kernels.some((kernel) => kernel.name === name)) problems.push(`${name}: is not there`);
  }
  return problems;
}

/** Columns of the table; opcodes that tell most about a kernel. */
const shown = ['HMMA', 'IMMA', 'LDSM', 'LDGSTS', 'LDG', 'STG', 'LDS', 'STS', 'BAR', 'MUFU', 'LDL'];

function tableOf(kernels) {
  const rows = kernels.map((kernel) => [
    kernel.name,
    kernel.registers,
    kernel.stackBytes,
    kernel.spillBytes ?? '?',
    kernel.staticSharedBytes,
    kernel.instructions,
    ...shown.map((mnemonic) => kernel.opcodes[mnemonic] ?? 0),
  ]);
  rows.unshift(['kernel', 'regs', 'stack', 'spills', 'shared', 'instr', ...shown]);
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => String(row[i]).length)));
  const line = (row) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : String(cell).padStart(widths[i])));
  return rows.map((row) => line(row).join('  ')).join('\n');
}

function main(args) {
  const files = [];
  const options = {};
  for (let i = 0; i < args.length; ++i) {
    if (args[i] === '--json') options.json = true;
    else if (args[i] === '--ptxas-log' || args[i] === '--budgets') options[args[i]] = args[++i];
    else files.push(args[i]);
  }
  if (files.length === 0) throw new Error('usage: node scripts/machine-code.mjs FILE...');
  const kernels = files.flatMap((file) => machineCode(readFileSync(file), file));
  if (options['--ptxas-log']) {
    const log = ptxasLog(readFileSync(options['--ptxas-log'], 'utf8'));
    for (const kernel of kernels) kernel.spillBytes = log.get(kernel.name)?.spillBytes;
  }
  console.log(options.json ? JSON.stringify(kernels, null, 2) : tableOf(kernels));
  if (options['--budgets']) {
    const budgets = JSON.parse(readFileSync(options['--budgets'], 'utf8'));
    const problems = budgetProblems(kernels, budgets);
    for (const problem of problems) console.error(problem);
    process.exitCode = problems.length > 0 ? 1 : 0;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 2;
  }
}
