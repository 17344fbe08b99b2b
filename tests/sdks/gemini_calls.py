"""Calls of google-genai: what it reports as used, as a line of JSON for each."""

import asyncio
import os
import sys

import httpx
import say
from google import genai
from google.genai import types

MODEL = "gemini-3.8-flash"
PROMPT = "You keep a weir. " * 1500
TOOL = types.FunctionDeclaration(
    name="read_gauge",
    description="Reads a gauge.",
    parameters_json_schema={"type": "object", "properties": {"path": {"type": "string"}}},
)
CONFIG = types.GenerateContentConfig(
    system_instruction=PROMPT, tools=[types.Tool(function_declarations=[TOOL])]
)
QUESTION = types.UserContent("How high is the water? [[sim: tokens=40 think=30 tool=read_gauge]]")
AGAIN = "And now? [[sim: tokens=150 events=20 think=30]]"
EMBED = {"model": "gemini-embedding-001", "contents": ["How high is the water?", "How high was it?"]}


def count(answer):
    used = answer.usage_metadata
    output = (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)
    say.counts(used.prompt_token_count, used.cached_content_token_count, output)


def embedded(answer):
    assert len(answer.embeddings) == 2, answer
    say.counts(answer.usage_metadata.prompt_token_count, 0, 0)


def answered(answer):
    """The conversation with the result of the tool that `answer` calls."""
    [call] = answer.function_calls
    result = types.Part.from_function_response(name=call.name, response={"height": "2 m"})
    return [QUESTION, answer.candidates[0].content, types.UserContent([result, AGAIN])]


def plain_and_streamed(client):
    answer = client.models.generate_content(model=MODEL, contents=QUESTION, config=CONFIG)
    count(answer)
    for last in client.models.generate_content_stream(model=MODEL, contents=answered(answer), config=CONFIG):
        pass
    count(last)
    *_, last = client.models.generate_content_stream(model=MODEL, contents=QUESTION, config=CONFIG)
    assert last.function_calls, last
    count(last)
    embedded(client.models.embed_content(**EMBED))


async def asynchronous(client):
    answer = await client.models.generate_content(model=MODEL, contents=QUESTION, config=CONFIG)
    count(answer)
    async for last in await client.models.generate_content_stream(
        model=MODEL, contents=answered(answer), config=CONFIG
    ):
        pass
    count(last)
    embedded(await client.models.embed_content(**EMBED))


def array():
    """A stream that is sent as one array, which the SDK does not ask for."""
    answer = httpx.post(
        f"https://generativelanguage.googleapis.com/v1beta/models/{MODEL}:streamGenerateContent",
        headers={"x-goog-api-key": os.environ["GEMINI_API_KEY"]},
        json={
            "systemInstruction": {"parts": [{"text": PROMPT}]},
            "contents": [{"role": "user", "parts": [{"text": AGAIN}]}],
        },
    )
    chunks = answer.raise_for_status().json()
    assert len(chunks) == 20, chunks
    count(types.GenerateContentResponse.model_validate(chunks[-1]))


def counted(client):
    """What is counted beforehand is what is used then."""
    print(client.models.count_tokens(model=MODEL, contents=QUESTION).total_tokens, flush=True)
    count(client.models.generate_content(model=MODEL, contents=QUESTION))


client = genai.Client()
match sys.argv[1:]:
    case ["all"]:
        plain_and_streamed(client)
        asyncio.run(asynchronous(client.aio))
        array()
    case ["counted"]:
        counted(client)
