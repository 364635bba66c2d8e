"""What the CSV drivers have in common: the file's columns, and the form of their answers, which is that of the truths
which the generator tells. Every system is told the columns, as Starling's row types tell them, and needs not guess."""

NUMBERS = {
    "Id", "PostTypeId", "AcceptedAnswerId", "ParentId", "Score", "ViewCount", "OwnerUserId", "AnswerCount",
    "CommentCount", "FavoriteCount",
}  # fmt: skip
COLUMNS = [
    "Id", "PostTypeId", "AcceptedAnswerId", "ParentId", "CreationDate", "Score", "ViewCount", "Body", "OwnerUserId",
    "Title", "Tags", "AnswerCount", "CommentCount", "FavoriteCount",
]  # fmt: skip


def count(records):
    return {"records": int(records)}


def by_type(rows):
    """From (post type, count, sum of scores) rows."""
    rows = [(str(int(kind)), int(number), int(score)) for kind, number, score in rows]
    return {
        "by_post_type": {kind: number for kind, number, _ in rows},
        "score_sum_by_post_type": {kind: score for kind, _, score in rows},
    }


def top_tags(rows):
    """From (tag, count) rows in any order."""
    rows = sorted(((str(tag), int(number)) for tag, number in rows), key=lambda row: (-row[1], row[0]))
    return {"top_tags": [list(row) for row in rows[:20]]}


def months(rows):
    """From (month, count) rows."""
    return {"questions_per_month": {str(month): int(number) for month, number in rows}}
