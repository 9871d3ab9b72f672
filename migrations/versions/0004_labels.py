"""Tags and properties of images, and indexes for what images are asked for by."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
AT_ONCE = 10_000


def upgrade() -> None:
    op.add_column("image", sa.Column("camera", TEXT))
    _fill_camera(op.get_bind())
    if op.get_bind().dialect.name == "postgresql":
        op.execute('ALTER TABLE image ALTER COLUMN taken_at TYPE VARCHAR COLLATE "C"')
    op.create_index("ix_image_taken_at", "image", ["taken_at"])
    op.create_index("ix_image_added_at", "image", ["added_at"])
    op.create_index("ix_image_latitude", "image", ["latitude", "longitude"])
    op.create_index("ix_file_image_id_state", "file", ["image_id", "state"])
    op.drop_index("ix_file_image_id", "file")
    op.create_table(
        "tag",
        sa.Column("image_id", ID, nullable=False),
        sa.Column("folded", TEXT, nullable=False),
        sa.Column("word", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "folded", name="pk_tag"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="fk_tag_image_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tag_folded", "tag", ["folded", "image_id"])
    op.create_table(
        "property",
        sa.Column("image_id", ID, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("folded", TEXT, nullable=False),
        sa.Column("number", sa.Double),
        sa.PrimaryKeyConstraint("image_id", "key", name="pk_property"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="fk_property_image_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_property_key_folded", "property", ["key", "folded", "image_id"])
    op.create_index("ix_property_key_number", "property", ["key", "number", "image_id"])


def _fill_camera(connection: sa.Connection) -> None:
    read = sa.text(
        "SELECT id, camera_make, camera_model FROM image WHERE id > :after "
        f"AND (camera_make <> '' OR camera_model <> '') ORDER BY id LIMIT {AT_ONCE}"
    )
    write = sa.text("UPDATE image SET camera = :camera WHERE id = :id")
    after = 0
    while rows := connection.execute(read, {"after": after}).all():
        after = rows[-1].id
        cameras = [
            {"id": id, "camera": _folded(" ".join(filter(None, (make, model))))}
            for id, make, model in rows
        ]
        connection.execute(write, cameras)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def downgrade() -> None:
    raise NotImplementedError("put back the copy that was made before the upgrade")
