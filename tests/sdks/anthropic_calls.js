'use strict';
// Calls of @anthropic-ai/sdk: the usage that it reports for each, as a line of JSON.

const { default: Anthropic, APIError } = require('@anthropic-ai/sdk');
const say = require('./say.js');

const CALL = {
  model: 'claude-sonnet-5-5',
  max_tokens: 1000,
  system: [{ type: 'text', text: 'You keep a weir. '.repeat(500), cache_control: { type: 'ephemeral' } }],
  tools: [
    {
      name: 'read_gauge',
      description: 'Reads a gauge.',
      input_schema: { type: 'object', properties: { gauge: { type: 'string' } } },
    },
  ],
};
const QUESTION = { role: 'user', content: 'How high is the water? [[sim: tokens=40 tool=read_gauge]]' };

// The conversation with the result of the tool that `message` calls.
const answered = (message) => [
  QUESTION,
  { role: 'assistant', content: message.content },
  {
    role: 'user',
    content: [
      { type: 'tool_result', tool_use_id: message.content.find((block) => block.type === 'tool_use').id, content: '2 m' },
      { type: 'text', text: 'And now? [[sim: tokens=150 events=20]]' },
    ],
  },
];

const one = async () => say.usage((await new Anthropic().messages.create({ ...CALL, messages: [QUESTION] })).usage);

const all = async () => {
  const client = new Anthropic();
  const message = await client.messages.create({ ...CALL, messages: [QUESTION] });
  say.usage(message.usage);
  const stream = client.messages.stream({ ...CALL, messages: answered(message) });
  say.usage((await stream.finalMessage()).usage);
  let last;
  for await (const event of await client.messages.create({ ...CALL, messages: [QUESTION], stream: true })) {
    if (event.type === 'message_delta') last = event;
  }
  say.usage(last.usage);
};

({ all, one, refused: () => say.refusal(APIError, one) })[process.argv[2]]();
