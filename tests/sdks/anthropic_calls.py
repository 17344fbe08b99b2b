"""Calls of the anthropic SDK: the usage that it reports for each, as a line of JSON."""

import asyncio
import sys

import anthropic
import say

CALL = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 1000,
    "system": [{"type": "text", "text": "You keep a weir. " * 500, "cache_control": {"type": "ephemeral"}}],
    "tools": [
        {
            "name": "read_gauge",
            "description": "Reads a gauge.",
            "input_schema": {"type": "object", "properties": {"gauge": {"type": "string"}}},
        }
    ],
}
QUESTION = {"role": "user", "content": "How high is the water? [[sim: tokens=40 tool=read_gauge]]"}


def answered(message):
    """The conversation with the result of the tool that `message` calls."""
    [use] = [block for block in message.content if block.type == "tool_use"]
    result = [
        {"type": "tool_result", "tool_use_id": use.id, "content": "2 m"},
        {"type": "text", "text": "And now? [[sim: tokens=150 events=20]]"},
    ]
    answer = {"role": "assistant", "content": [block.to_dict() for block in message.content]}
    return [QUESTION, answer, {"role": "user", "content": result}]


def plain_and_streamed():
    client = anthropic.Anthropic()
    message = client.messages.create(messages=[QUESTION], **CALL)
    say.usage(message.usage)
    with client.messages.stream(messages=answered(message), **CALL) as stream:
        for _ in stream.text_stream:
            pass
        say.usage(stream.get_final_message().usage)
    events = list(client.messages.create(messages=[QUESTION], stream=True, **CALL))
    [last] = [event for event in events if event.type == "message_delta"]
    say.usage(last.usage)


async def asynchronous():
    async with anthropic.AsyncAnthropic() as client:
        message = await client.messages.create(messages=[QUESTION], **CALL)
        say.usage(message.usage)
        async with client.messages.stream(messages=answered(message), **CALL) as stream:
            say.usage((await stream.get_final_message()).usage)


def one(client):
    say.usage(client.messages.create(messages=[QUESTION], **CALL).usage)


def counted(client):
    """What is counted beforehand is what is used then."""
    counting = {name: CALL[name] for name in ("model", "system", "tools")}
    print(client.messages.count_tokens(messages=[QUESTION], **counting).input_tokens, flush=True)
    one(client)


match sys.argv[1:]:
    case ["all"]:
        plain_and_streamed()
        asyncio.run(asynchronous())
    case ["counted"]:
        counted(anthropic.Anthropic())
    case ["one"]:
        one(anthropic.Anthropic())
    case ["refused"]:
        say.refusal(anthropic.APIStatusError, lambda: one(anthropic.Anthropic()))
