"""Calls of the groq SDK: what it reports as used, as a line of JSON for each."""

import asyncio

import groq
import say

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL = {"name": "read_gauge", "description": "Reads a gauge.", "parameters": SCHEMA}
CALL = {"model": "openai/gpt-oss-120b", "tools": [{"type": "function", "function": TOOL}]}
QUESTION = [
    {"role": "system", "content": "You keep a weir. " * 500},
    {"role": "user", "content": "How high is the water? [[sim: tokens=40 tool=read_gauge]]"},
]


def count(used):
    details = used.prompt_tokens_details
    say.counts(used.prompt_tokens, details and details.cached_tokens, used.completion_tokens)


def answered(completion):
    """The conversation with the result of the tool that `completion` calls."""
    message = completion.choices[0].message
    [call] = message.tool_calls
    result = "2 m [[sim: tokens=150 events=20]]"
    return [*QUESTION, message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": result}]


def calls_a_tool(chunks):
    assert any(chunk.choices[0].delta.tool_calls for chunk in chunks), chunks
    count(chunks[-1].x_groq.usage)


def plain_and_streamed():
    client = groq.Groq()
    completion = client.chat.completions.create(messages=QUESTION, **CALL)
    count(completion.usage)
    chunks = list(client.chat.completions.create(messages=answered(completion), stream=True, **CALL))
    count(chunks[-1].x_groq.usage)
    calls_a_tool(list(client.chat.completions.create(messages=QUESTION, stream=True, **CALL)))


async def asynchronous():
    async with groq.AsyncGroq() as client:
        completion = await client.chat.completions.create(messages=QUESTION, **CALL)
        count(completion.usage)
        stream = await client.chat.completions.create(messages=answered(completion), stream=True, **CALL)
        chunks = [chunk async for chunk in stream]
        count(chunks[-1].x_groq.usage)
        stream = await client.chat.completions.create(messages=QUESTION, stream=True, **CALL)
        calls_a_tool([chunk async for chunk in stream])


plain_and_streamed()
asyncio.run(asynchronous())
