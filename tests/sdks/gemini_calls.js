'use strict';
// Calls of @google/genai: what it reports as used, as a line of JSON for each.

const { GoogleGenAI } = require('@google/genai');

const MODEL = 'gemini-3.8-flash';
const TOOL = {
  name: 'read_gauge',
  description: 'Reads a gauge.',
  parametersJsonSchema: { type: 'object', properties: { path: { type: 'string' } } },
};
const CONFIG = {
  systemInstruction: 'You keep a weir. '.repeat(1500),
  tools: [{ functionDeclarations: [TOOL] }],
};
const text = (text) => ({ text });
const QUESTION = { role: 'user', parts: [text('How high is the water? [[sim: tokens=40 think=30 tool=read_gauge]]')] };
const AGAIN = text('And now? [[sim: tokens=150 events=20 think=30]]');

const count = ({ usageMetadata: used }) => {
  const output = used.candidatesTokenCount + (used.thoughtsTokenCount ?? 0);
  console.log(JSON.stringify([used.promptTokenCount, used.cachedContentTokenCount ?? 0, output]));
};

// The conversation with the result of the tool that `answer` calls.
const answered = (answer) => {
  const [{ name }] = answer.functionCalls;
  const functionResponse = { name, response: { height: '2 m' } };
  return [QUESTION, answer.candidates[0].content, { role: 'user', parts: [{ functionResponse }, AGAIN] }];
};

const streamed = async (models, contents) => {
  let last;
  for await (const chunk of await models.generateContentStream({ model: MODEL, contents, config: CONFIG })) last = chunk;
  count(last);
  return last;
};

const all = async () => {
  const { models } = new GoogleGenAI({});
  const answer = await models.generateContent({ model: MODEL, contents: [QUESTION], config: CONFIG });
  count(answer);
  await streamed(models, answered(answer));
  const last = await streamed(models, [QUESTION]);
  if (!last.functionCalls) throw new Error(JSON.stringify(last));
};

all();
