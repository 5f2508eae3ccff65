"""A shop with FastAPI and SQLAlchemy: who signs up is told to the topic `user-events`.

export DATABASE_URL="$(allim db url)"
uvicorn examples.fastapi_shop:app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from allim import waking
from allim.events import DomainEvent, publish

engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://", 1)
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "fastapi_user"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(unique=True)


class UserCreated(DomainEvent):
    topic = "user-events"
    user_id: UUID
    username: str


class SignUp(BaseModel):
    name: str


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    # Relays hear of every commit at once; without this they look every so often.
    with waking(os.environ["DATABASE_URL"]):
        yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def transaction() -> AsyncIterator[AsyncSession]:
    async with sessions() as session, session.begin():
        yield session


@app.post("/users", status_code=201)
async def sign_up(
    body: SignUp, session: Annotated[AsyncSession, Depends(transaction, scope="function")]
) -> dict[str, UUID]:
    user = User(name=body.name)
    session.add(user)
    await session.flush()
    # The row and the event are committed together, or neither is.
    await publish(session, UserCreated(user_id=user.id, username=user.name))
    return {"id": user.id}
