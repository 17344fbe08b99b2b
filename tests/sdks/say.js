'use strict';
// What the tests read: lines of JSON.

exports.usage = (found) => console.log(JSON.stringify(found ?? null));

exports.refusal = async (expected, call) => {
  try {
    await call();
  } catch (error) {
    if (!(error instanceof expected)) throw error;
    console.log(JSON.stringify({ status: error.status, kind: error.constructor.name, message: error.message }));
    return;
  }
  throw new Error('the call was not refused');
};
