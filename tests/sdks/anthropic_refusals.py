"""What the anthropic SDK makes of refusals in a stream that has begun, and of a breaker's: a line of JSON for each."""

import asyncio
import sys

import anthropic
import refusals

CALL = {"model": "claude-sonnet-5-5", "max_tokens": 64000}


def ask(text):
    return {**CALL, "messages": [{"role": "user", "content": text}]}


def stream():
    client = anthropic.Anthropic()
    refusals.of(anthropic.APIError, lambda: client.messages.create(stream=True, **ask(refusals.LONG)))

    def helper():
        with client.messages.stream(**ask(refusals.LONG)) as stream:
            yield from stream

    refusals.of(anthropic.APIError, helper)


async def stream_asynchronously():
    async with anthropic.AsyncAnthropic() as client:
        events = await client.messages.create(stream=True, **ask(refusals.LONG))
        await refusals.of_asynchronous(anthropic.APIError, events)


def breaker():
    client = anthropic.Anthropic()
    refusals.until_refused(anthropic.RateLimitError, lambda: client.messages.create(**{**ask(refusals.SHORT), "max_tokens": 2000}))


match sys.argv[1]:
    case "stream":
        stream()
        asyncio.run(stream_asynchronously())
    case "breaker":
        breaker()
