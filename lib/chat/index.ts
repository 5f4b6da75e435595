export { type ChatFormatOptions, createChatFormat } from './format.js';
export { type ChatFormat, encodeLlama2Chat } from './llama2.js';
export type { ChatMessage } from './messages.js';
