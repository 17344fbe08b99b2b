'use strict';
// What the tests of refusals read: lines of JSON, one for each exception.

exports.LONG = 'Tell me all. [[sim: tokens=12000 events=600 delay_ms=1]]';
exports.SHORT = 'How high is the water? [[sim: tokens=1000]]';

// `seconds`: since the call was made, or since the last event of its answer.
const say = (expected, error, events, began) => {
  if (!(error instanceof expected)) throw error;
  const seconds = (performance.now() - began) / 1000;
  console.log(JSON.stringify({ kind: error.constructor.name, message: error.message, events, seconds }));
};

// A stream that breaks off: how many events came before the exception.
exports.of = async (expected, call) => {
  let events = 0;
  let began = performance.now();
  try {
    for await (const _ of await call()) {
      events += 1;
      began = performance.now();
    }
  } catch (error) {
    return say(expected, error, events, began);
  }
  throw new Error('the stream was not ended');
};

// Calls until one is refused: how many were not.
exports.untilRefused = async (expected, call) => {
  for (let made = 0; made < 50; made += 1) {
    const began = performance.now();
    try {
      await call();
    } catch (error) {
      return say(expected, error, made, began);
    }
  }
  throw new Error('no call was refused');
};
