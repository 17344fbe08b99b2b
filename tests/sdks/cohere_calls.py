"""Calls of the cohere SDK: what it reports as billed, as a line of JSON for each."""

import asyncio

import cohere
import say

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL = {"name": "read_gauge", "description": "Reads a gauge.", "parameters": SCHEMA}
CALL = {"model": "command-a-03-2025", "tools": [{"type": "function", "function": TOOL}]}
QUESTION = [
    {"role": "system", "content": "You keep a weir. " * 500},
    {"role": "user", "content": "How high is the water? [[sim: tokens=40 tool=read_gauge]]"},
]


def count(used):
    say.counts(used.billed_units.input_tokens, used.cached_tokens, used.billed_units.output_tokens)


def answered(answer):
    """The conversation with the result of the tool that `answer` calls."""
    [call] = answer.message.tool_calls
    result = "2 m [[sim: tokens=150 events=20]]"
    return [*QUESTION, answer.message, {"role": "tool", "tool_call_id": call.id, "content": result}]


def calls_a_tool(events):
    assert any(event.type == "tool-call-start" for event in events), events
    count(events[-1].delta.usage)


def plain_and_streamed():
    client = cohere.ClientV2()
    answer = client.chat(messages=QUESTION, **CALL)
    count(answer.usage)
    count(list(client.chat_stream(messages=answered(answer), **CALL))[-1].delta.usage)
    calls_a_tool(list(client.chat_stream(messages=QUESTION, **CALL)))


async def asynchronous():
    client = cohere.AsyncClientV2()
    answer = await client.chat(messages=QUESTION, **CALL)
    count(answer.usage)
    events = [event async for event in client.chat_stream(messages=answered(answer), **CALL)]
    count(events[-1].delta.usage)
    calls_a_tool([event async for event in client.chat_stream(messages=QUESTION, **CALL)])


plain_and_streamed()
asyncio.run(asynchronous())
