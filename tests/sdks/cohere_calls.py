"""Calls of the cohere SDK: what it reports as billed, as a line of JSON for each."""

import asyncio

import cohere
import say

CALL = {
    "model": "command-a-03-2025",
    "messages": [
        {"role": "system", "content": "You keep a weir. " * 500},
        {"role": "user", "content": "How high is the water? [[sim: tokens=150 events=20]]"},
    ],
}


def count(used):
    say.counts(used.billed_units.input_tokens, used.cached_tokens, used.billed_units.output_tokens)


async def asynchronous():
    client = cohere.AsyncClientV2()
    count((await client.chat(**CALL)).usage)
    events = [event async for event in client.chat_stream(**CALL)]
    count(events[-1].delta.usage)


client = cohere.ClientV2()
count(client.chat(**CALL).usage)
count(list(client.chat_stream(**CALL))[-1].delta.usage)
asyncio.run(asynchronous())
