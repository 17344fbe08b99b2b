'use strict';
// What @anthropic-ai/sdk makes of refusals in a stream that has begun, and of a breaker's: a line of JSON for each.

const { default: Anthropic, APIError, RateLimitError } = require('@anthropic-ai/sdk');
const refusals = require('./refusals.js');

const ask = (content) => ({ model: 'claude-sonnet-5-5', max_tokens: 64000, messages: [{ role: 'user', content }] });

const stream = async () => {
  const client = new Anthropic();
  await refusals.of(APIError, () => client.messages.create({ ...ask(refusals.LONG), stream: true }));
  await refusals.of(APIError, () => client.messages.stream(ask(refusals.LONG)));
};

const breaker = async () => {
  const client = new Anthropic();
  await refusals.untilRefused(RateLimitError, () => client.messages.create({ ...ask(refusals.SHORT), max_tokens: 2000 }));
};

({ stream, breaker })[process.argv[2]]();
