from groundup.data.types import Conversation, Document, Message, Origin, Pair

__all__ = ["Conversation", "Document", "Message", "Origin", "Pair"]
