"""The clients of SDKs for other hosts than their makers': the usage that they report, as a line of JSON for each call."""

import asyncio
import json
import sys

import anthropic
import openai
import say
from google import genai
from google.oauth2.credentials import Credentials

PROMPT = "You keep a weir. " * 500
MESSAGES = {
    "max_tokens": 1000,
    "system": [{"type": "text", "text": PROMPT, "cache_control": {"type": "ephemeral"}}],
    "messages": [{"role": "user", "content": "How high is the water? [[sim: tokens=150 events=20]]"}],
}
CHAT = {
    # Which model that is, only the answer tells.
    "model": "weir-gauge",
    "messages": [
        {"role": "system", "content": PROMPT},
        {"role": "user", "content": "How high is the water? [[sim: tokens=150 events=20]]"},
    ],
}
GENERATE = {
    "model": "gemini-3.8-flash",
    "contents": PROMPT * 3 + "How high is the water? [[sim: tokens=150 events=20]]",
}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

BEDROCK = {"aws_region": "us-east-1"}
VERTEX = {"region": "us-east5", "project_id": "weir-tests", "credentials": Credentials("ya29.simulated")}
GOOGLE = {"project": "weir-tests", "location": "global", "credentials": Credentials("ya29.simulated")}
AZURE = {"azure_endpoint": "https://weir-tests.openai.azure.com", "api_version": "2024-10-21"}


def messages(client, model):
    say.usage(client.messages.create(model=model, **MESSAGES).usage)
    with client.messages.stream(model=model, **MESSAGES) as stream:
        say.usage(stream.get_final_message().usage)


async def messages_asynchronously(client, model):
    async with client:
        say.usage((await client.messages.create(model=model, **MESSAGES)).usage)
        async with client.messages.stream(model=model, **MESSAGES) as stream:
            say.usage((await stream.get_final_message()).usage)


def bedrock():
    messages(anthropic.AnthropicBedrock(**BEDROCK), "us.anthropic.claude-sonnet-4-6")
    asyncio.run(messages_asynchronously(anthropic.AsyncAnthropicBedrock(**BEDROCK), "us.anthropic.claude-sonnet-4-6"))


def vertex():
    messages(anthropic.AnthropicVertex(**VERTEX), "claude-sonnet-4-6")
    asyncio.run(messages_asynchronously(anthropic.AsyncAnthropicVertex(**VERTEX), "claude-sonnet-4-6"))


def counts(answer):
    used = answer.usage_metadata
    say.counts(used.prompt_token_count, used.cached_content_token_count, used.candidates_token_count)


async def gemini_asynchronously(models):
    counts(await models.generate_content(**GENERATE))
    async for last in await models.generate_content_stream(**GENERATE):
        pass
    counts(last)


def gemini():
    client = genai.Client(vertexai=True, **GOOGLE)
    counts(client.models.generate_content(**GENERATE))
    *_, last = client.models.generate_content_stream(**GENERATE)
    counts(last)
    asyncio.run(gemini_asynchronously(client.aio.models))


async def azure_asynchronously():
    async with openai.AsyncAzureOpenAI(**AZURE) as client:
        say.usage((await client.chat.completions.create(**CHAT)).usage)
        stream = await client.chat.completions.create(**CHAT, **USAGE)
        say.usage([chunk async for chunk in stream][-1].usage)


def azure():
    client = openai.AzureOpenAI(**AZURE)
    say.usage(client.chat.completions.create(**CHAT).usage)
    say.usage(list(client.chat.completions.create(**CHAT, **USAGE))[-1].usage)
    asyncio.run(azure_asynchronously())


def outgrown():
    client = anthropic.AnthropicBedrock(**BEDROCK)
    question = {"role": "user", "content": "And then? [[sim: tokens=12000 events=600 delay_ms=1]]"}
    try:
        model = "global.anthropic.claude-sonnet-4-6"
        with client.messages.stream(model=model, max_tokens=64_000, messages=[question]) as stream:
            stream.get_final_message()
    except anthropic.APIError as error:
        print(json.dumps({"Message": error.body["error"]["message"]}), flush=True)
    else:
        raise AssertionError("the stream ended well")


{"outgrown": outgrown, "bedrock": bedrock, "vertex": vertex, "gemini": gemini, "azure": azure}[sys.argv[1]]()
