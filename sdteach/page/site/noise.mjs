// The noise a run begins with: the very numbers that torch draws on a CPU from the same seed, made here.

// 32 bits at a time, by the Mersenne Twister (Matsumoto & Nishimura, 1998), as torch seeds it.
function* bits(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  for (;;) {
    for (let i = 0; i < 624; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    for (let word of state) {
      word ^= word >>> 11;
      word ^= (word << 7) & 0x9d2c5680;
      word ^= (word << 15) & 0xefc60000;
      yield (word ^ (word >>> 18)) >>> 0;
    }
  }
}

// Normal numbers from uniform ones (Box & Muller, 1958), in place: eight radii, eight angles.
function normal(sixteen) {
  for (let i = 0; i < 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - sixteen[i])), angle = 2 * Math.PI * sixteen[i + 8];
    sixteen[i] = radius * Math.cos(angle);
    sixteen[i + 8] = radius * Math.sin(angle);
  }
}

// `torch.randn(count, generator=torch.Generator().manual_seed(seed))`, for 16 numbers or more: torch draws fewer in another way.
export function randn(count, seed) {
  if (count < 16) throw new RangeError(`expected at least 16 numbers, got ${count}`);
  const source = bits(seed), numbers = new Float32Array(count);
  const uniform = () => (source.next().value & 0xffffff) / 0x1000000;
  for (let i = 0; i < count; i++) numbers[i] = uniform();
  for (let i = 0; i + 16 <= count; i += 16) normal(numbers.subarray(i, i + 16));
  if (count % 16) { // the last sixteen are drawn anew
    const last = numbers.subarray(count - 16);
    for (let i = 0; i < 16; i++) last[i] = uniform();
    normal(last);
  }
  return numbers;
}
