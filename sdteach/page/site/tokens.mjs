// A prompt becomes tokens, by the tokenizer that the checkpoint came with, run by @huggingface/tokenizers.
import { Tokenizer } from "./vendor/tokenizers.min.mjs";

const SPACE = /^\s$/u;

// A word is a special one; or letters with all that belongs to them, joined by apostrophe or hyphen; or what stands between.
function wordOf(special) {
  const letters = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d", own = special.map(word => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|");
  return new RegExp(`(?:${own})|[${letters}]+(?:['’-][${letters}]+)*|(?:(?!${own})[^\\s\\p{Alphabetic}\\p{Nd}\\p{Pc}])+`, "gu");
}

// Where in the text each piece stands, from and to in characters. Spaces apart, the pieces are the text, in lower case, byte by byte.
function spans(text, pieces) {
  const bytes = new TextEncoder(), owners = []; // of each byte, its character
  let at = 0;
  for (const letter of text) {
    if (!SPACE.test(letter)) for (const _ of bytes.encode(letter.toLowerCase())) owners.push([at, at + letter.length]);
    at += letter.length;
  }
  let used = 0;
  return pieces.map(piece => {
    const size = piece.replace(/<\/w>$/, "").length, own = owners.slice(used, used += size);
    return own.length ? [own[0][0], own.at(-1)[1]] : [at, at];
  });
}

export class Tokens {
  // `file` is tokenizer.json, read.
  constructor(file, { places, start, end, padding, vocabulary, rows, unread }) {
    Object.assign(this, { places, start, end, padding, tokenizer: new Tokenizer(file, {}) });
    this.word = wordOf(file.added_tokens.map(token => token.content));
    this.vocabulary = vocabulary && new Set(vocabulary);
    this.rows = new Map(rows.map((id, row) => [id, row]));
    this.unread = id => rows.length - unread + (id % unread); // a row that was never learned, as the word's own
  }

  // `ids` of all places, the `pieces` from the start token to the end token, the `words`, the word of each piece (-1 for none), what was
  // cut off, the words that a small checkpoint never read, and the `table` rows of all places.
  of(prompt) {
    const text = prompt.normalize("NFC");
    const all = this.tokenizer.encode(text, { add_special_tokens: false }), room = this.places - 2;
    const where = spans(text, all.tokens), fitting = all.ids.slice(0, room), at = where.slice(0, room), end = fitting.length + 1;
    const ids = [this.start, ...fitting, this.end, ...Array(room - fitting.length).fill(this.padding)];
    const read = at.at(-1)?.[1] ?? 0, found = [...text.matchAll(this.word)].filter(word => word.index < read);
    const owner = at.map(([from, to]) => found.findIndex(word => word.index < Math.max(to, from + 1) && from < word.index + word[0].length));
    const used = [...new Set(owner)].filter(word => word >= 0).sort((a, b) => a - b), words = used.map(word => found[word][0]);
    return {
      text, ids, end, words, pieces: ["start", ...all.tokens.slice(0, room).map(piece => piece.endsWith("</w>") ? piece.slice(0, -4) : `${piece}-`), "end"],
      word_of: [-1, ...owner.map(word => used.indexOf(word)), -1],
      dropped: all.ids.length > room ? text.slice(where[room][0]).trim() : "",
      unknown: this.vocabulary ? [...new Set(words)].filter(word => /[\p{L}\p{N}]/u.test(word) && !this.vocabulary.has(word.toLowerCase())) : [],
      table: ids.map(id => this.rows.get(id) ?? this.unread(id)),
    };
  }
}

// The places of a word, by its number.
export const placesOf = (tokens, word) => tokens.word_of.flatMap((owner, place) => owner === word ? [place] : []);
