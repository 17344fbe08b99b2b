"""Calls of the openai SDK inside WebSockets: what it reports of each, as a line of JSON."""

import asyncio

import openai
import say

PROMPT = "You keep a weir. " * 500
QUESTIONS = ["How high is the water? [[sim: tokens=40]]", "And now? [[sim: tokens=150 events=20]]"]


def message(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def counts(usage):
    details = getattr(usage, "input_tokens_details", None) or usage.input_token_details
    say.counts(usage.input_tokens, details.cached_tokens, usage.output_tokens)


def responses():
    with openai.OpenAI().responses.connect() as connection:
        for question in QUESTIONS:
            connection.response.create(model="gpt-5.5", instructions=PROMPT, input=[message(question)])
            for event in connection:
                if event.type == "response.completed":
                    counts(event.response.usage)
                    break


def realtime():
    with openai.OpenAI().realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session={"type": "realtime", "instructions": PROMPT})
        for question in QUESTIONS:
            connection.conversation.item.create(item=message(question))
            connection.response.create()
            for event in connection:
                if event.type == "response.done":
                    counts(event.response.usage)
                    break


async def asynchronous():
    async with openai.AsyncOpenAI() as client:
        async with client.responses.connect() as connection:
            await connection.response.create(model="gpt-5.5", instructions=PROMPT, input=[message(QUESTIONS[0])])
            async for event in connection:
                if event.type == "response.completed":
                    counts(event.response.usage)
                    break
        async with client.realtime.connect(model="gpt-realtime") as connection:
            await connection.session.update(session={"type": "realtime", "instructions": PROMPT})
            await connection.conversation.item.create(item=message(QUESTIONS[0]))
            await connection.response.create()
            async for event in connection:
                if event.type == "response.done":
                    counts(event.response.usage)
                    break


responses()
realtime()
asyncio.run(asynchronous())
