"""Answer a question with a local model: python answer.py MODEL"""

import asyncio
import sys

from craftsman_ultra import Model


async def chat(model: Model, question: str) -> str:
    """Print an answer while it is made."""
    messages = [{"role": "user", "content": question}]
    with model.session() as session:
        stream = session.stream(messages, thinking=False, max_tokens=64, temperature=0.0)
        async for piece in stream:
            print(piece, end="", flush=True)
        return stream.result().reason


def main() -> None:
    """Continue a text, then answer a question."""
    with Model.open(sys.argv[1]) as model:
        with model.session() as session:
            print(session.generate("A vector is", max_tokens=16, temperature=0.0).text)
        question = "What is a vector?"
        print(question)
        reason = asyncio.run(chat(model, question))
        print(f"\nended by {reason}")


if __name__ == "__main__":
    main()
