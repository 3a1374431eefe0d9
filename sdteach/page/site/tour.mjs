// The tour: eight captions, each with the stage it is about, how far the run is, and whether a word is chosen.
export const captions = [
  { stage: "words", far: 1, says: "You typed words. The network has never seen a word: each piece is looked up in a table, and its number goes on. Type something else and watch the numbers." },
  { stage: "vectors", far: 1, says: "Each number becomes a vector. Words come in order, and each vector knows of those before it: “star” after “yellow” is another star." },
  { stage: "noise", far: 0, says: "Every picture begins as noise from a seed. Press “Another” later: same words, other noise, other picture." },
  { stage: "steps", far: 0.3, says: "The UNet looks at the noisy latents and predicts the noise in them. Large shapes are settled first: drag the slider and see how early." },
  { stage: "reading", far: 1, word: true, says: "Where did it read your words? At every position it asks each word. Press another word, or a spot of the picture." },
  { stage: "guidance", far: 0.5, says: "It predicts twice, without your words and with them, and goes on in the direction of the difference. Set Guidance to 1 and it no longer does." },
  { stage: "steps", far: 0.9, says: "Details come last: between these steps only edges change. Fewer steps are quicker. How few still do?" },
  { stage: "picture", far: 1, says: "The decoder paints the latents as a picture, once. Now keep it beside the next run, change one thing, and compare." },
];
