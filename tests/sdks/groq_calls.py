"""Calls of the groq SDK: what it reports as used, as a line of JSON for each."""

import asyncio

import groq
import say

CALL = {
    "model": "openai/gpt-oss-120b",
    "messages": [
        {"role": "system", "content": "You keep a weir. " * 500},
        {"role": "user", "content": "How high is the water? [[sim: tokens=150 events=20]]"},
    ],
}


def count(used):
    details = used.prompt_tokens_details
    say.counts(used.prompt_tokens, details and details.cached_tokens, used.completion_tokens)


async def asynchronous():
    async with groq.AsyncGroq() as client:
        count((await client.chat.completions.create(**CALL)).usage)
        chunks = [chunk async for chunk in await client.chat.completions.create(stream=True, **CALL)]
        count(chunks[-1].x_groq.usage)


client = groq.Groq()
count(client.chat.completions.create(**CALL).usage)
count(list(client.chat.completions.create(stream=True, **CALL))[-1].x_groq.usage)
asyncio.run(asynchronous())
