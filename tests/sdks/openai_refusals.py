"""What the openai package makes of refusals in a stream that has begun, and of a breaker's: a line of JSON for each."""

import asyncio
import sys

import openai
import refusals

CHAT = "gpt-5.5"
RESPONSES = "gpt-6-sol"


def chat(text):
    return {"model": CHAT, "messages": [{"role": "user", "content": text}]}


def response(text):
    return {"model": RESPONSES, "input": text, "store": False}


def stream():
    client = openai.OpenAI()
    refusals.of(openai.APIError, lambda: client.chat.completions.create(stream=True, **chat(refusals.LONG)))
    refusals.of(openai.APIError, lambda: client.responses.create(stream=True, **response(refusals.LONG)))

    def helper():
        with client.responses.stream(**response(refusals.LONG)) as stream:
            yield from stream

    refusals.of(openai.APIError, helper)


async def stream_asynchronously():
    async with openai.AsyncOpenAI() as client:
        chunks = await client.chat.completions.create(stream=True, **chat(refusals.LONG))
        await refusals.of_asynchronous(openai.APIError, chunks)


def breaker():
    client = openai.OpenAI()
    refusals.until_refused(openai.RateLimitError, lambda: client.chat.completions.create(**chat(refusals.SHORT)))
    refusals.until_refused(openai.RateLimitError, lambda: client.responses.create(**response(refusals.SHORT)))


match sys.argv[1]:
    case "stream":
        stream()
        asyncio.run(stream_asynchronously())
    case "breaker":
        breaker()
