"""Content, places, vectors and their change log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "image",
        sa.Column("id", ID, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("format", sa.String),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("taken_at", sa.String),
        sa.Column("camera_make", sa.String),
        sa.Column("camera_model", sa.String),
        sa.Column("latitude", sa.Double),
        sa.Column("longitude", sa.Double),
        sa.Column("added_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_image"),
        sa.UniqueConstraint("digest", name="uq_image_digest"),
    )
    op.create_table(
        "folder",
        sa.Column("id", ID, nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("added_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_folder"),
        sa.UniqueConstraint("path", name="uq_folder_path"),
    )
    op.create_table(
        "model",
        sa.Column("id", ID, nullable=False),
        sa.Column("identity", sa.String(64), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("in_use", sa.Boolean, nullable=False),
        sa.Column("added_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model"),
        sa.UniqueConstraint("identity", name="uq_model_identity"),
    )
    op.create_table(
        "file",
        sa.Column("id", ID, nullable=False),
        sa.Column("folder_id", ID),
        sa.Column("image_id", ID),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("mtime_ns", sa.BigInteger, nullable=False),
        sa.Column("inode", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("checked_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_file"),
        sa.ForeignKeyConstraint(["folder_id"], ["folder.id"], name="fk_file_folder_id"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="fk_file_image_id"),
        sa.UniqueConstraint("path", name="uq_file_path"),
        sa.CheckConstraint("state IN ('present', 'missing', 'skipped')", name="ck_file_state"),
        sa.CheckConstraint(
            "state <> 'present' OR image_id IS NOT NULL", name="ck_file_present_image"
        ),
        sa.CheckConstraint(
            "state <> 'skipped' OR reason IS NOT NULL", name="ck_file_skipped_reason"
        ),
    )
    op.create_index("ix_file_folder_id", "file", ["folder_id"])
    op.create_index("ix_file_image_id", "file", ["image_id"])
    op.create_table(
        "embedding",
        sa.Column("image_id", ID, nullable=False),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("image_id", "model_id", name="pk_embedding"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="fk_embedding_image_id"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_embedding_model_id"),
    )
    op.create_table(
        "change",
        sa.Column("seq", ID, nullable=False, autoincrement=True),
        sa.Column("model_id", ID, nullable=False),
        sa.Column("image_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_change"),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name="fk_change_model_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_change_model_id_seq", "change", ["model_id", "seq"])


def downgrade() -> None:
    for table in ("change", "embedding", "file", "model", "folder", "image"):
        op.drop_table(table)
