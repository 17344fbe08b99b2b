'use strict';
// Calls of the openai package inside WebSockets: what it reports of each, as a line of JSON.

const { default: OpenAI } = require('openai');
const { ResponsesWS } = require('openai/resources/responses/ws');
const { OpenAIRealtimeWS } = require('openai/realtime/ws');

const PROMPT = 'You keep a weir. '.repeat(500);
const QUESTIONS = ['How high is the water? [[sim: tokens=40]]', 'And now? [[sim: tokens=150 events=20]]'];

const message = (text) => ({ type: 'message', role: 'user', content: [{ type: 'input_text', text }] });
const counts = (usage) => {
  const details = usage.input_tokens_details ?? usage.input_token_details;
  console.log(JSON.stringify([usage.input_tokens, details.cached_tokens, usage.output_tokens]));
};
const next = (socket, type) =>
  new Promise((resolve, reject) => {
    socket.once(type, resolve);
    socket.once('error', reject);
  });

const responses = async () => {
  const socket = new ResponsesWS(new OpenAI());
  for (const question of QUESTIONS) {
    const done = next(socket, 'response.completed');
    socket.send({ type: 'response.create', model: 'gpt-5.5', instructions: PROMPT, input: [message(question)] });
    counts((await done).response.usage);
  }
  socket.close();
};

const realtime = async () => {
  const socket = new OpenAIRealtimeWS({ model: 'gpt-realtime' }, new OpenAI());
  await next(socket, 'session.created');
  socket.send({ type: 'session.update', session: { type: 'realtime', instructions: PROMPT } });
  for (const question of QUESTIONS) {
    const done = next(socket, 'response.done');
    socket.send({ type: 'conversation.item.create', item: message(question) });
    socket.send({ type: 'response.create' });
    counts((await done).response.usage);
  }
  socket.close();
};

responses().then(realtime);
