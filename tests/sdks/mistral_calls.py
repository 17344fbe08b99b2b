"""Calls of the mistralai SDK: what it reports as used, as a line of JSON for each."""

import asyncio
import os

import say
from mistralai.client import Mistral

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL = {"name": "read_gauge", "description": "Reads a gauge.", "parameters": SCHEMA}
CALL = {"model": "mistral-large-4", "tools": [{"type": "function", "function": TOOL}]}
QUESTION = [
    {"role": "system", "content": "You keep a weir. " * 500},
    {"role": "user", "content": "How high is the water? [[sim: tokens=40 tool=read_gauge]]"},
]


def count(used):
    cached = (used.additional_properties or {})["prompt_tokens_details"]["cached_tokens"]
    say.counts(used.prompt_tokens, cached, used.completion_tokens)


def answered(completion):
    """The conversation with the result of the tool that `completion` calls."""
    message = completion.choices[0].message
    [call] = message.tool_calls
    result = "2 m [[sim: tokens=150 events=20]]"
    return [*QUESTION, message, {"role": "tool", "tool_call_id": call.id, "content": result}]


def calls_a_tool(events):
    assert any(event.data.choices[0].delta.tool_calls for event in events), events
    count(events[-1].data.usage)


def plain_and_streamed(client):
    completion = client.chat.complete(messages=QUESTION, **CALL)
    count(completion.usage)
    count([event.data.usage for event in client.chat.stream(messages=answered(completion), **CALL)][-1])
    calls_a_tool(list(client.chat.stream(messages=QUESTION, **CALL)))


async def asynchronous(client):
    completion = await client.chat.complete_async(messages=QUESTION, **CALL)
    count(completion.usage)
    stream = await client.chat.stream_async(messages=answered(completion), **CALL)
    count([event.data.usage async for event in stream][-1])
    calls_a_tool([event async for event in await client.chat.stream_async(messages=QUESTION, **CALL)])


client = Mistral(api_key=os.environ["MISTRAL_API_KEY"])
plain_and_streamed(client)
asyncio.run(asynchronous(client))
