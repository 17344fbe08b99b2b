'use strict';
// Calls of @google/genai: what it reports as used, as a line of JSON for each.

const { GoogleGenAI } = require('@google/genai');

const CALL = {
  model: 'gemini-3.8-flash',
  contents: 'How high is the water? [[sim: tokens=150 events=20 think=30]]',
  config: { systemInstruction: 'You keep a weir. '.repeat(1500) },
};

const count = ({ usageMetadata: used }) => {
  const output = used.candidatesTokenCount + (used.thoughtsTokenCount ?? 0);
  console.log(JSON.stringify([used.promptTokenCount, used.cachedContentTokenCount ?? 0, output]));
};

const all = async () => {
  const { models } = new GoogleGenAI({});
  count(await models.generateContent(CALL));
  let last;
  for await (const chunk of await models.generateContentStream(CALL)) last = chunk;
  count(last);
};

all();
