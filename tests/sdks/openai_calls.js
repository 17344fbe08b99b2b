'use strict';
// Calls of the openai package: the usage that it reports for each, as a line of JSON.

const { default: OpenAI, APIError } = require('openai');
const say = require('./say.js');

const PROMPT = 'You keep a weir. '.repeat(500);
const TOOL = {
  name: 'read_gauge',
  description: 'Reads a gauge.',
  parameters: { type: 'object', properties: { gauge: { type: 'string' } } },
};
const QUESTION = 'How high is the water? [[sim: tokens=40 tool=read_gauge]]';
const AGAIN = 'And now? [[sim: tokens=150 events=20 think=30]]';

const CHAT = { model: 'gpt-5.5', tools: [{ type: 'function', function: TOOL }] };
const CHAT_MESSAGES = [{ role: 'system', content: PROMPT }, { role: 'user', content: QUESTION }];
const RESPONSE = { model: 'gpt-6-sol', instructions: PROMPT, tools: [{ type: 'function', ...TOOL }], store: false };
const RESPONSE_INPUT = [{ role: 'user', content: QUESTION }];

const chat = async () => {
  const client = new OpenAI();
  const completion = await client.chat.completions.create({ ...CHAT, messages: CHAT_MESSAGES });
  say.usage(completion.usage);
  const { message } = completion.choices[0];
  const messages = [
    ...CHAT_MESSAGES,
    message,
    { role: 'tool', tool_call_id: message.tool_calls[0].id, content: '2 m' },
    { role: 'user', content: AGAIN },
  ];
  const streamed = { ...CHAT, messages, stream: true };
  let last;
  for await (const chunk of await client.chat.completions.create({ ...streamed, stream_options: { include_usage: true } })) {
    last = chunk;
  }
  say.usage(last.usage);
  // Where it was not asked for, the application sees no usage, and every chunk has a choice.
  for await (const chunk of await client.chat.completions.create(streamed)) {
    if (chunk.choices.length === 0 || chunk.usage) throw new Error(JSON.stringify(chunk));
  }
  say.usage(null);
};

const responses = async () => {
  const client = new OpenAI();
  const response = await client.responses.create({ ...RESPONSE, input: RESPONSE_INPUT });
  say.usage(response.usage);
  const input = [
    ...RESPONSE_INPUT,
    ...response.output,
    {
      type: 'function_call_output',
      call_id: response.output.find((item) => item.type === 'function_call').call_id,
      output: '2 m',
    },
    { role: 'user', content: AGAIN },
  ];
  const stream = client.responses.stream({ ...RESPONSE, input });
  say.usage((await stream.finalResponse()).usage);
};

const embeddings = async () => {
  const input = ['How high is the water?', 'How high was it?'];
  const { usage } = await new OpenAI().embeddings.create({ model: 'text-embedding-3-small', input });
  say.usage([usage.prompt_tokens, 0, 0]);
};

const one = async () => say.usage((await new OpenAI().chat.completions.create({ ...CHAT, messages: CHAT_MESSAGES })).usage);
const oneResponse = async () => say.usage((await new OpenAI().responses.create({ ...RESPONSE, input: RESPONSE_INPUT })).usage);

const all = async () => {
  await chat();
  await responses();
  await embeddings();
};
const refused = async () => {
  await say.refusal(APIError, one);
  await say.refusal(APIError, oneResponse);
};

({ all, one, refused })[process.argv[2]]();
