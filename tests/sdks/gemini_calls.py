"""Calls of google-genai: what it reports as used, as a line of JSON for each."""

import asyncio

import say
from google import genai
from google.genai import types

CALL = {
    "model": "gemini-3.8-flash",
    "contents": "How high is the water? [[sim: tokens=150 events=20 think=30]]",
    "config": types.GenerateContentConfig(system_instruction="You keep a weir. " * 1500),
}


def count(answer):
    used = answer.usage_metadata
    output = used.candidates_token_count + (used.thoughts_token_count or 0)
    say.counts(used.prompt_token_count, used.cached_content_token_count, output)


async def asynchronous(client):
    count(await client.aio.models.generate_content(**CALL))
    async for last in await client.aio.models.generate_content_stream(**CALL):
        pass
    count(last)


client = genai.Client()
count(client.models.generate_content(**CALL))
for last in client.models.generate_content_stream(**CALL):
    pass
count(last)
asyncio.run(asynchronous(client))
