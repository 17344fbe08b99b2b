"""Calls of the mistralai SDK: what it reports as used, as a line of JSON for each."""

import asyncio
import os

import say
from mistralai.client import Mistral

CALL = {
    "model": "mistral-large-4",
    "messages": [
        {"role": "system", "content": "You keep a weir. " * 500},
        {"role": "user", "content": "How high is the water? [[sim: tokens=150 events=20]]"},
    ],
}


def count(used):
    cached = (used.additional_properties or {})["prompt_tokens_details"]["cached_tokens"]
    say.counts(used.prompt_tokens, cached, used.completion_tokens)


async def asynchronous(client):
    count((await client.chat.complete_async(**CALL)).usage)
    used = [event.data.usage async for event in await client.chat.stream_async(**CALL)]
    count(used[-1])


client = Mistral(api_key=os.environ["MISTRAL_API_KEY"])
count(client.chat.complete(**CALL).usage)
count([event.data.usage for event in client.chat.stream(**CALL)][-1])
asyncio.run(asynchronous(client))
