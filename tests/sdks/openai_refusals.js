'use strict';
// What the openai package makes of refusals in a stream that has begun, and of a breaker's: a line of JSON for each.

const { default: OpenAI, APIError, RateLimitError } = require('openai');
const refusals = require('./refusals.js');

const chat = (content) => ({ model: 'gpt-5.5', messages: [{ role: 'user', content }] });
const response = (input) => ({ model: 'gpt-6-sol', input, store: false });

const stream = async () => {
  const client = new OpenAI();
  await refusals.of(APIError, () => client.chat.completions.create({ ...chat(refusals.LONG), stream: true }));
  await refusals.of(APIError, () => client.responses.create({ ...response(refusals.LONG), stream: true }));
  await refusals.of(APIError, () => client.responses.stream(response(refusals.LONG)));
};

const breaker = async () => {
  const client = new OpenAI();
  await refusals.untilRefused(RateLimitError, () => client.chat.completions.create(chat(refusals.SHORT)));
  await refusals.untilRefused(RateLimitError, () => client.responses.create(response(refusals.SHORT)));
};

({ stream, breaker })[process.argv[2]]();
