"""A short conversation: two messages, answered as they come."""

import antiphon


def main() -> None:
    with antiphon.Engine() as engine, engine.conversation() as conversation:
        for message in ["Hello, I need help with my account", "I forgot my password"]:
            for event in conversation.say(message):
                if event.analysis:
                    print(f"[{event.analysis.intent.label}] ", end="")
                print(event.content, end="\n" if event.reply else "")


if __name__ == "__main__":
    main()
