"""
The application that is served for `benchmarks.web`: five events a request, through the logger that ``BENCH_LOGGER`` names.

``/work/{n}`` is the least that FastAPI can do. ``/orders`` is what applications do: it takes a document and checks it, stores it
in a database (SQLite in memory, so that no disk is measured) and answers with a page of the user's latest ones. It takes about a
millisecond.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI
from pydantic import BaseModel, Field

from benchmarks.contenders import CONTENDERS
from benchmarks.event import tight_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """End the contender as an application should."""
    yield
    if name:
        session.close()


app = FastAPI(lifespan=lifespan)
name = os.environ["BENCH_LOGGER"]
if name:
    place = Path(os.environ["BENCH_DIRECTORY"]) / str(os.getpid())
    place.mkdir(parents=True)
    session = CONTENDERS[name](place)
    log, loop = session.log, tight_loop(session.call, session.names)


database = sqlite3.connect(":memory:", check_same_thread=False)
database.executescript("""
    CREATE TABLE orders (id INTEGER PRIMARY KEY, user TEXT NOT NULL, currency TEXT NOT NULL, total REAL NOT NULL);
    CREATE TABLE items (order_id INTEGER NOT NULL, sku TEXT NOT NULL, quantity INTEGER NOT NULL, price REAL NOT NULL);
    CREATE INDEX orders_of_user ON orders (user, id);
    CREATE INDEX items_of_order ON items (order_id);
""")


class Item(BaseModel):
    """What is ordered."""

    sku: str = Field(pattern=r"^[A-Z]{2}-[0-9]+$")
    quantity: int = Field(gt=0)
    price: float = Field(gt=0)


class Order(BaseModel):
    """What comes in."""

    user: str
    currency: str = Field(min_length=3, max_length=3)
    items: list[Item] = Field(min_length=1)


class Stored(Order):
    """What goes out."""

    id: int
    total: float


@app.get("/work/{n}")
async def work(n: int) -> dict[str, int]:
    """Log five events, or none."""
    if name:
        loop(log, 5)
    return {"n": n}


@app.post("/orders")
async def order(wanted: Order) -> list[Stored]:
    """Log five events, or none."""
    total = round(sum(item.price * item.quantity for item in wanted.items), 2)
    with database:
        cursor = database.execute(
            "INSERT INTO orders (user, currency, total) VALUES (?, ?, ?)", (wanted.user, wanted.currency, total)
        )
        rows = [(cursor.lastrowid, item.sku, item.quantity, item.price) for item in wanted.items]
        database.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
    if name:
        loop(log, 5)
    return latest_of(wanted.user)


def latest_of(user: str) -> list[Stored]:
    """Return a page of the user's latest orders, with their items."""
    orders = database.execute("SELECT id, currency, total FROM orders WHERE user = ? ORDER BY id DESC LIMIT 40", (user,))
    found = []
    for number, currency, total in orders.fetchall():
        rows = database.execute("SELECT sku, quantity, price FROM items WHERE order_id = ?", (number,))
        items = [Item(sku=sku, quantity=quantity, price=price) for sku, quantity, price in rows]
        found.append(Stored(id=number, user=user, currency=currency, total=total, items=items))
    return found
