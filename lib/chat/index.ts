export { type ChatFormat, type ChatFormatOptions, createChatFormat } from './format.js';
export { encodeLlama2Chat } from './llama2.js';
export type { ChatMessage } from './messages.js';
