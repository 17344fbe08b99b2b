"""Calls of the openai SDK: the usage that it reports for each, as a line of JSON."""

import asyncio
import sys

import openai
import say

PROMPT = "You keep a weir. " * 500
PARAMETERS = {"type": "object", "properties": {"gauge": {"type": "string"}}}
TOOL = {"name": "read_gauge", "description": "Reads a gauge.", "parameters": PARAMETERS}
QUESTION = "How high is the water? [[sim: tokens=40 tool=read_gauge]]"
AGAIN = "And now? [[sim: tokens=150 events=20 think=30]]"

CHAT = {"model": "gpt-5.5", "tools": [{"type": "function", "function": TOOL}]}
CHAT_MESSAGES = [{"role": "system", "content": PROMPT}, {"role": "user", "content": QUESTION}]
RESPONSE = {
    "model": "gpt-6-sol",
    "instructions": PROMPT,
    "tools": [{"type": "function", **TOOL}],
    "store": False,
}
EMBED = {"model": "text-embedding-3-small", "input": ["How high is the water?", "How high was it?"]}
RESPONSE_INPUT = [{"role": "user", "content": QUESTION}]


def chat_answered(completion):
    """The conversation with the result of the tool that `completion` calls."""
    message = completion.choices[0].message
    [call] = message.tool_calls
    return [
        *CHAT_MESSAGES,
        message.to_dict(),
        {"role": "tool", "tool_call_id": call.id, "content": "2 m"},
        {"role": "user", "content": AGAIN},
    ]


def response_answered(response):
    """The same for the Responses API."""
    [call] = [item for item in response.output if item.type == "function_call"]
    return [
        *RESPONSE_INPUT,
        *[item.to_dict() for item in response.output],
        {"type": "function_call_output", "call_id": call.call_id, "output": "2 m"},
        {"role": "user", "content": AGAIN},
    ]


def chat():
    client = openai.OpenAI()
    completion = client.chat.completions.create(messages=CHAT_MESSAGES, **CHAT)
    say.usage(completion.usage)
    messages = chat_answered(completion)
    chunks = list(
        client.chat.completions.create(
            messages=messages, stream=True, stream_options={"include_usage": True}, **CHAT
        )
    )
    say.usage(chunks[-1].usage)
    # Where it was not asked for, the application sees no usage, and every chunk has a choice.
    chunks = list(client.chat.completions.create(messages=messages, stream=True, **CHAT))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), chunks
    say.usage(None)


def responses():
    client = openai.OpenAI()
    response = client.responses.create(input=RESPONSE_INPUT, **RESPONSE)
    say.usage(response.usage)
    with client.responses.stream(input=response_answered(response), **RESPONSE) as stream:
        say.usage(stream.get_final_response().usage)


async def asynchronous():
    async with openai.AsyncOpenAI() as client:
        completion = await client.chat.completions.create(messages=CHAT_MESSAGES, **CHAT)
        say.usage(completion.usage)
        stream = await client.chat.completions.create(
            messages=chat_answered(completion), stream=True, stream_options={"include_usage": True}, **CHAT
        )
        chunks = [chunk async for chunk in stream]
        say.usage(chunks[-1].usage)
        response = await client.responses.create(input=RESPONSE_INPUT, **RESPONSE)
        say.usage(response.usage)
        async with client.responses.stream(input=response_answered(response), **RESPONSE) as stream:
            say.usage((await stream.get_final_response()).usage)


def embedded(answer):
    assert len(answer.data[0].embedding) == 2, answer
    say.counts(answer.usage.prompt_tokens, 0, 0)


async def embeddings_asynchronously():
    async with openai.AsyncOpenAI() as client:
        embedded(await client.embeddings.create(encoding_format="float", **EMBED))


def one():
    say.usage(openai.OpenAI().chat.completions.create(messages=CHAT_MESSAGES, **CHAT).usage)


def one_response():
    say.usage(openai.OpenAI().responses.create(input=RESPONSE_INPUT, **RESPONSE).usage)


match sys.argv[1:]:
    case ["all"]:
        chat()
        responses()
        asyncio.run(asynchronous())
        embedded(openai.OpenAI().embeddings.create(**EMBED))
        asyncio.run(embeddings_asynchronously())
    case ["one"]:
        one()
    case ["refused"]:
        say.refusal(openai.APIStatusError, one)
        say.refusal(openai.APIStatusError, one_response)
