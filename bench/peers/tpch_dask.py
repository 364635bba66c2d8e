"""TPC-H on dask.dataframe over a distributed cluster: each query written by hand, as one would for pandas. What is small is
ordered and cut by pandas at the client.

Arguments: the scheduler's address, the number of workers.
"""

import re
import sys

import dask.dataframe as dd
import pandas as pd
from distributed import Client

import protocol
import sql

client = None
# Row groups of 131,072 rows to a partition.
ROW_GROUPS = 4


class Tables:
    """The tables of a request, by their names."""

    def __init__(self, request):
        self.paths = request["tables"]
        self.sql = request["sql"]

    def __call__(self, name, *columns):
        return dd.read_parquet(self.paths[name], columns=list(columns), split_row_groups=ROW_GROUPS)


def compute(frame):
    return client.compute(frame).result()


def day(text):
    return pd.Timestamp(text)


def revenue(lines):
    return lines.l_extendedprice * (1 - lines.l_discount)


def nations_of(t, region):
    regions = t("region", "r_regionkey", "r_name")
    nations = t("nation", "n_nationkey", "n_name", "n_regionkey")
    return regions[regions.r_name == region].merge(nations, left_on="r_regionkey", right_on="n_regionkey")


def q01(t):
    l = t(
        "lineitem", "l_returnflag", "l_linestatus", "l_quantity", "l_extendedprice", "l_discount", "l_tax", "l_shipdate"
    )
    l = l[l.l_shipdate <= day("1998-09-02")]
    l = l.assign(price=revenue(l))
    l = l.assign(charge=l.price * (1 + l.l_tax))
    sums = l.groupby(["l_returnflag", "l_linestatus"]).agg(
        {
            "l_quantity": ["sum", "mean", "count"],
            "l_extendedprice": ["sum", "mean"],
            "price": ["sum"],
            "charge": ["sum"],
            "l_discount": ["mean"],
        }
    )
    sums = compute(sums).sort_index()
    columns = [
        ("l_quantity", "sum"), ("l_extendedprice", "sum"), ("price", "sum"), ("charge", "sum"), ("l_quantity", "mean"),
        ("l_extendedprice", "mean"), ("l_discount", "mean"), ("l_quantity", "count"),
    ]  # fmt: skip
    answer = sums[columns]
    answer.columns = ["_".join(column) for column in columns]
    return answer.reset_index()


def q02(t):
    suppliers = t(
        "supplier", "s_suppkey", "s_nationkey", "s_acctbal", "s_name", "s_address", "s_phone", "s_comment"
    )
    suppliers = nations_of(t, "EUROPE").merge(suppliers, left_on="n_nationkey", right_on="s_nationkey")
    offers = t("partsupp", "ps_partkey", "ps_suppkey", "ps_supplycost")
    parts = t("part", "p_partkey", "p_mfgr", "p_size", "p_type")
    parts = parts[(parts.p_size == 15) & parts.p_type.str.endswith("BRASS")]
    offers = offers.merge(parts, left_on="ps_partkey", right_on="p_partkey")
    offers = offers.merge(suppliers, left_on="ps_suppkey", right_on="s_suppkey")
    least = offers.groupby("p_partkey").ps_supplycost.min().rename("least").reset_index()
    offers = offers.merge(least, on="p_partkey")
    columns = ["s_acctbal", "s_name", "n_name", "p_partkey", "p_mfgr", "s_address", "s_phone", "s_comment"]
    answer = compute(offers[offers.ps_supplycost == offers.least][columns])
    order = ["s_acctbal", "n_name", "s_name", "p_partkey"]
    return answer.sort_values(order, ascending=[False, True, True, True]).head(100)


def q03(t):
    c = t("customer", "c_custkey", "c_mktsegment")
    o = t("orders", "o_orderkey", "o_custkey", "o_orderdate", "o_shippriority")
    l = t("lineitem", "l_orderkey", "l_extendedprice", "l_discount", "l_shipdate")
    c = c[c.c_mktsegment == "BUILDING"]
    o = o[o.o_orderdate < day("1995-03-15")]
    l = l[l.l_shipdate > day("1995-03-15")]
    lines = l.merge(o.merge(c, left_on="o_custkey", right_on="c_custkey"), left_on="l_orderkey", right_on="o_orderkey")
    lines = lines.assign(revenue=revenue(lines))
    sums = lines.groupby(["l_orderkey", "o_orderdate", "o_shippriority"]).revenue.sum()
    answer = compute(sums).reset_index()[["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]]
    return answer.sort_values(["revenue", "o_orderdate"], ascending=[False, True]).head(10)


def q04(t):
    o = t("orders", "o_orderkey", "o_orderdate", "o_orderpriority")
    l = t("lineitem", "l_orderkey", "l_commitdate", "l_receiptdate")
    o = o[(o.o_orderdate >= day("1993-07-01")) & (o.o_orderdate < day("1993-10-01"))]
    l = l[l.l_commitdate < l.l_receiptdate]
    orders = o.merge(l, left_on="o_orderkey", right_on="l_orderkey")
    orders = orders[["o_orderkey", "o_orderpriority"]].drop_duplicates()
    return compute(orders.groupby("o_orderpriority").size()).sort_index().rename("order_count").reset_index()


def q05(t):
    suppliers = nations_of(t, "ASIA").merge(
        t("supplier", "s_suppkey", "s_nationkey"), left_on="n_nationkey", right_on="s_nationkey"
    )
    c = t("customer", "c_custkey", "c_nationkey")
    o = t("orders", "o_orderkey", "o_custkey", "o_orderdate")
    l = t("lineitem", "l_orderkey", "l_suppkey", "l_extendedprice", "l_discount")
    o = o[(o.o_orderdate >= day("1994-01-01")) & (o.o_orderdate < day("1995-01-01"))]
    orders = o.merge(c, left_on="o_custkey", right_on="c_custkey")
    lines = l.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    lines = lines.merge(suppliers, left_on=["l_suppkey", "c_nationkey"], right_on=["s_suppkey", "s_nationkey"])
    lines = lines.assign(revenue=revenue(lines))
    answer = compute(lines.groupby("n_name").revenue.sum()).reset_index()
    return answer.sort_values("revenue", ascending=False)


def q06(t):
    l = t("lineitem", "l_shipdate", "l_discount", "l_quantity", "l_extendedprice")
    l = l[(l.l_shipdate >= day("1994-01-01")) & (l.l_shipdate < day("1995-01-01"))]
    # Of doubles: 0.07 is to be within.
    l = l[(l.l_discount >= 0.05 - 1e-9) & (l.l_discount <= 0.07 + 1e-9) & (l.l_quantity < 24)]
    return pd.DataFrame({"revenue": [compute((l.l_extendedprice * l.l_discount).sum())]})


def q07(t):
    nations = t("nation", "n_nationkey", "n_name")
    nations = nations[nations.n_name.isin(["FRANCE", "GERMANY"])]
    suppliers = t("supplier", "s_suppkey", "s_nationkey").merge(
        nations.rename(columns={"n_name": "supp_nation"}), left_on="s_nationkey", right_on="n_nationkey"
    )
    customers = t("customer", "c_custkey", "c_nationkey").merge(
        nations.rename(columns={"n_name": "cust_nation"}), left_on="c_nationkey", right_on="n_nationkey"
    )
    l = t("lineitem", "l_orderkey", "l_suppkey", "l_shipdate", "l_extendedprice", "l_discount")
    l = l[(l.l_shipdate >= day("1995-01-01")) & (l.l_shipdate <= day("1996-12-31"))]
    lines = l.merge(suppliers[["s_suppkey", "supp_nation"]], left_on="l_suppkey", right_on="s_suppkey")
    orders = t("orders", "o_orderkey", "o_custkey").merge(
        customers[["c_custkey", "cust_nation"]], left_on="o_custkey", right_on="c_custkey"
    )
    lines = lines.merge(orders, left_on="l_orderkey", right_on="o_orderkey")
    lines = lines[lines.supp_nation != lines.cust_nation]
    lines = lines.assign(revenue=revenue(lines), l_year=lines.l_shipdate.dt.year)
    keys = ["supp_nation", "cust_nation", "l_year"]
    return compute(lines.groupby(keys).revenue.sum()).reset_index().sort_values(keys)


def q08(t):
    p = t("part", "p_partkey", "p_type")
    p = p[p.p_type == "ECONOMY ANODIZED STEEL"]
    l = t("lineitem", "l_partkey", "l_suppkey", "l_orderkey", "l_extendedprice", "l_discount")
    o = t("orders", "o_orderkey", "o_custkey", "o_orderdate")
    o = o[(o.o_orderdate >= day("1995-01-01")) & (o.o_orderdate <= day("1996-12-31"))]
    customers = t("customer", "c_custkey", "c_nationkey").merge(
        nations_of(t, "AMERICA")[["n_nationkey"]], left_on="c_nationkey", right_on="n_nationkey"
    )
    suppliers = t("supplier", "s_suppkey", "s_nationkey").merge(
        t("nation", "n_nationkey", "n_name"), left_on="s_nationkey", right_on="n_nationkey"
    )
    lines = l.merge(p, left_on="l_partkey", right_on="p_partkey")
    lines = lines.merge(o, left_on="l_orderkey", right_on="o_orderkey")
    lines = lines.merge(customers[["c_custkey"]], left_on="o_custkey", right_on="c_custkey")
    lines = lines.merge(suppliers[["s_suppkey", "n_name"]], left_on="l_suppkey", right_on="s_suppkey")
    lines = lines.assign(volume=revenue(lines), o_year=lines.o_orderdate.dt.year)
    lines = lines.assign(brazil=lines.volume.where(lines.n_name == "BRAZIL", 0.0))
    sums = compute(lines.groupby("o_year")[["brazil", "volume"]].sum()).sort_index()
    return (sums.brazil / sums.volume).rename("mkt_share").reset_index()


def q09(t):
    p = t("part", "p_partkey", "p_name")
    p = p[p.p_name.str.contains("green", regex=False)]
    l = t("lineitem", "l_partkey", "l_suppkey", "l_orderkey", "l_quantity", "l_extendedprice", "l_discount")
    lines = l.merge(p[["p_partkey"]], left_on="l_partkey", right_on="p_partkey")
    offers = t("partsupp", "ps_partkey", "ps_suppkey", "ps_supplycost")
    lines = lines.merge(offers, left_on=["l_partkey", "l_suppkey"], right_on=["ps_partkey", "ps_suppkey"])
    suppliers = t("supplier", "s_suppkey", "s_nationkey").merge(
        t("nation", "n_nationkey", "n_name"), left_on="s_nationkey", right_on="n_nationkey"
    )
    lines = lines.merge(suppliers[["s_suppkey", "n_name"]], left_on="l_suppkey", right_on="s_suppkey")
    lines = lines.merge(t("orders", "o_orderkey", "o_orderdate"), left_on="l_orderkey", right_on="o_orderkey")
    lines = lines.assign(
        amount=revenue(lines) - lines.ps_supplycost * lines.l_quantity, o_year=lines.o_orderdate.dt.year
    )
    answer = compute(lines.groupby(["n_name", "o_year"]).amount.sum()).reset_index()
    return answer.sort_values(["n_name", "o_year"], ascending=[True, False])


def q10(t):
    c = t("customer", "c_custkey", "c_name", "c_acctbal", "c_phone", "c_nationkey", "c_address", "c_comment")
    o = t("orders", "o_orderkey", "o_custkey", "o_orderdate")
    o = o[(o.o_orderdate >= day("1993-10-01")) & (o.o_orderdate < day("1994-01-01"))]
    l = t("lineitem", "l_orderkey", "l_returnflag", "l_extendedprice", "l_discount")
    lines = l[l.l_returnflag == "R"].merge(o, left_on="l_orderkey", right_on="o_orderkey")
    lines = lines.assign(revenue=revenue(lines))
    sums = lines.groupby("o_custkey").revenue.sum().reset_index()
    customers = c.merge(t("nation", "n_nationkey", "n_name"), left_on="c_nationkey", right_on="n_nationkey")
    answer = sums.nlargest(20, "revenue").merge(customers, left_on="o_custkey", right_on="c_custkey")
    answer = compute(answer)
    columns = ["c_custkey", "c_name", "revenue", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment"]
    return answer[columns].sort_values("revenue", ascending=False)


def q11(t):
    nations = t("nation", "n_nationkey", "n_name")
    suppliers = t("supplier", "s_suppkey", "s_nationkey").merge(
        nations[nations.n_name == "GERMANY"], left_on="s_nationkey", right_on="n_nationkey"
    )
    offers = t("partsupp", "ps_partkey", "ps_suppkey", "ps_availqty", "ps_supplycost")
    offers = offers.merge(suppliers[["s_suppkey"]], left_on="ps_suppkey", right_on="s_suppkey")
    offers = offers.assign(value=offers.ps_supplycost * offers.ps_availqty)
    values = compute(offers.groupby("ps_partkey").value.sum())
    # The share depends on the scale factor.
    share = float(re.search(r"\* (0\.\d+)", t.sql).group(1))
    answer = values[values > values.sum() * share].reset_index()
    return answer.sort_values("value", ascending=False)


def q12(t):
    l = t("lineitem", "l_orderkey", "l_shipmode", "l_commitdate", "l_receiptdate", "l_shipdate")
    l = l[l.l_shipmode.isin(["MAIL", "SHIP"]) & (l.l_commitdate < l.l_receiptdate) & (l.l_shipdate < l.l_commitdate)]
    l = l[(l.l_receiptdate >= day("1994-01-01")) & (l.l_receiptdate < day("1995-01-01"))]
    lines = l.merge(t("orders", "o_orderkey", "o_orderpriority"), left_on="l_orderkey", right_on="o_orderkey")
    high = lines.o_orderpriority.isin(["1-URGENT", "2-HIGH"])
    lines = lines.assign(high=high.astype("int64"), low=(~high).astype("int64"))
    return compute(lines.groupby("l_shipmode")[["high", "low"]].sum()).sort_index().reset_index()


def q13(t):
    o = t("orders", "o_orderkey", "o_custkey", "o_comment")
    o = o[~o.o_comment.str.contains("special.*requests", regex=True)][["o_orderkey", "o_custkey"]]
    customers = t("customer", "c_custkey").merge(o, how="left", left_on="c_custkey", right_on="o_custkey")
    counts = customers.groupby("c_custkey").o_orderkey.count().rename("c_count").reset_index()
    answer = compute(counts.groupby("c_count").size()).rename("custdist").reset_index()
    return answer.sort_values(["custdist", "c_count"], ascending=[False, False])


def q14(t):
    l = t("lineitem", "l_partkey", "l_shipdate", "l_extendedprice", "l_discount")
    l = l[(l.l_shipdate >= day("1995-09-01")) & (l.l_shipdate < day("1995-10-01"))]
    lines = l.merge(t("part", "p_partkey", "p_type"), left_on="l_partkey", right_on="p_partkey")
    lines = lines.assign(revenue=revenue(lines))
    lines = lines.assign(promo=lines.revenue.where(lines.p_type.str.startswith("PROMO"), 0.0))
    sums = compute(lines[["promo", "revenue"]].sum())
    return pd.DataFrame({"promo_revenue": [100.0 * sums.promo / sums.revenue]})


def q15(t):
    l = t("lineitem", "l_suppkey", "l_shipdate", "l_extendedprice", "l_discount")
    l = l[(l.l_shipdate >= day("1996-01-01")) & (l.l_shipdate < day("1996-04-01"))]
    l = l.assign(total_revenue=revenue(l))
    sums = compute(l.groupby("l_suppkey").total_revenue.sum()).reset_index()
    # Sums of doubles: those that are as large as the largest, but for their last digits.
    best = sums[sums.total_revenue >= sums.total_revenue.max() * (1 - 1e-12)]
    suppliers = t("supplier", "s_suppkey", "s_name", "s_address", "s_phone")
    answer = compute(suppliers[suppliers.s_suppkey.isin(best.l_suppkey.tolist())])
    answer = answer.merge(best, left_on="s_suppkey", right_on="l_suppkey").sort_values("s_suppkey")
    return answer[["s_suppkey", "s_name", "s_address", "s_phone", "total_revenue"]]


def q16(t):
    s = t("supplier", "s_suppkey", "s_comment")
    complained = compute(s[s.s_comment.str.contains("Customer.*Complaints", regex=True)].s_suppkey)
    p = t("part", "p_partkey", "p_brand", "p_type", "p_size")
    p = p[(p.p_brand != "Brand#45") & ~p.p_type.str.startswith("MEDIUM POLISHED")]
    p = p[p.p_size.isin([49, 14, 23, 45, 19, 3, 36, 9])]
    offers = t("partsupp", "ps_partkey", "ps_suppkey")
    offers = offers[~offers.ps_suppkey.isin(complained.tolist())]
    offers = offers.merge(p, left_on="ps_partkey", right_on="p_partkey")
    keys = ["p_brand", "p_type", "p_size"]
    pairs = offers[[*keys, "ps_suppkey"]].drop_duplicates()
    answer = compute(pairs.groupby(keys).size()).rename("supplier_cnt").reset_index()
    return answer.sort_values(["supplier_cnt", *keys], ascending=[False, True, True, True])


def q17(t):
    p = t("part", "p_partkey", "p_brand", "p_container")
    p = p[(p.p_brand == "Brand#23") & (p.p_container == "MED BOX")][["p_partkey"]]
    l = t("lineitem", "l_partkey", "l_quantity", "l_extendedprice")
    lines = l.merge(p, left_on="l_partkey", right_on="p_partkey")
    means = (0.2 * lines.groupby("l_partkey").l_quantity.mean()).rename("least").reset_index()
    lines = lines.merge(means, on="l_partkey")
    total = compute(lines[lines.l_quantity < lines.least].l_extendedprice.sum())
    return pd.DataFrame({"avg_yearly": [total / 7.0]})


def q18(t):
    sums = t("lineitem", "l_orderkey", "l_quantity").groupby("l_orderkey").l_quantity.sum().rename("quantity")
    sums = sums.reset_index()
    o = t("orders", "o_orderkey", "o_custkey", "o_orderdate", "o_totalprice")
    orders = o.merge(sums[sums.quantity > 300], left_on="o_orderkey", right_on="l_orderkey")
    orders = orders.merge(t("customer", "c_custkey", "c_name"), left_on="o_custkey", right_on="c_custkey")
    columns = ["c_name", "c_custkey", "o_orderkey", "o_orderdate", "o_totalprice", "quantity"]
    answer = compute(orders[columns])
    return answer.sort_values(["o_totalprice", "o_orderdate"], ascending=[False, True]).head(100)


def q19(t):
    l = t(
        "lineitem", "l_partkey", "l_quantity", "l_extendedprice", "l_discount", "l_shipmode", "l_shipinstruct"
    )
    l = l[l.l_shipmode.isin(["AIR", "AIR REG"]) & (l.l_shipinstruct == "DELIVER IN PERSON")]
    p = t("part", "p_partkey", "p_brand", "p_container", "p_size")
    lines = l.merge(p, left_on="l_partkey", right_on="p_partkey")

    def kind(brand, size, containers, most, least):
        containers = [f"{size} {container}" for container in containers]
        chosen = (lines.p_brand == brand) & lines.p_container.isin(containers) & lines.p_size.between(1, most)
        return chosen & lines.l_quantity.between(least, least + 10)

    lines = lines[
        kind("Brand#12", "SM", ["CASE", "BOX", "PACK", "PKG"], 5, 1)
        | kind("Brand#23", "MED", ["BAG", "BOX", "PKG", "PACK"], 10, 10)
        | kind("Brand#34", "LG", ["CASE", "BOX", "PACK", "PKG"], 15, 20)
    ]
    return pd.DataFrame({"revenue": [compute(revenue(lines).sum())]})


def q20(t):
    p = t("part", "p_partkey", "p_name")
    p = p[p.p_name.str.startswith("forest")][["p_partkey"]]
    l = t("lineitem", "l_partkey", "l_suppkey", "l_quantity", "l_shipdate")
    l = l[(l.l_shipdate >= day("1994-01-01")) & (l.l_shipdate < day("1995-01-01"))]
    l = l.merge(p, left_on="l_partkey", right_on="p_partkey")
    halves = (0.5 * l.groupby(["l_partkey", "l_suppkey"]).l_quantity.sum()).rename("half").reset_index()
    offers = t("partsupp", "ps_partkey", "ps_suppkey", "ps_availqty")
    offers = offers.merge(halves, left_on=["ps_partkey", "ps_suppkey"], right_on=["l_partkey", "l_suppkey"])
    offers = offers[offers.ps_availqty > offers.half][["ps_suppkey"]].drop_duplicates()
    nations = t("nation", "n_nationkey", "n_name")
    suppliers = t("supplier", "s_suppkey", "s_nationkey", "s_name", "s_address").merge(
        nations[nations.n_name == "CANADA"], left_on="s_nationkey", right_on="n_nationkey"
    )
    suppliers = suppliers.merge(offers, left_on="s_suppkey", right_on="ps_suppkey")
    return compute(suppliers[["s_name", "s_address"]]).sort_values("s_name")


def q21(t):
    l = t("lineitem", "l_orderkey", "l_suppkey", "l_receiptdate", "l_commitdate")
    late = l[l.l_receiptdate > l.l_commitdate][["l_orderkey", "l_suppkey"]]
    # An order has several suppliers if the least is not the greatest of them; of those that were late there is one if it is.
    every = l.groupby("l_orderkey").l_suppkey.agg(["min", "max"]).reset_index()
    several = every[every["min"] != every["max"]][["l_orderkey"]]
    alone = late.groupby("l_orderkey").l_suppkey.agg(["min", "max"]).reset_index()
    alone = alone[alone["min"] == alone["max"]][["l_orderkey"]]
    nations = t("nation", "n_nationkey", "n_name")
    suppliers = t("supplier", "s_suppkey", "s_nationkey", "s_name").merge(
        nations[nations.n_name == "SAUDI ARABIA"], left_on="s_nationkey", right_on="n_nationkey"
    )
    o = t("orders", "o_orderkey", "o_orderstatus")
    lines = late.merge(suppliers[["s_suppkey", "s_name"]], left_on="l_suppkey", right_on="s_suppkey")
    lines = lines.merge(o[o.o_orderstatus == "F"], left_on="l_orderkey", right_on="o_orderkey")
    lines = lines.merge(several, on="l_orderkey").merge(alone, on="l_orderkey")
    answer = compute(lines.groupby("s_name").size()).rename("numwait").reset_index()
    return answer.sort_values(["numwait", "s_name"], ascending=[False, True]).head(100)


def q22(t):
    c = t("customer", "c_custkey", "c_phone", "c_acctbal")
    c = c.assign(cntrycode=c.c_phone.str.slice(0, 2))
    c = c[c.cntrycode.isin(["13", "31", "23", "29", "30", "18", "17"])]
    mean = compute(c[c.c_acctbal > 0.0].c_acctbal.mean())
    rich = c[c.c_acctbal > mean]
    ordering = t("orders", "o_custkey").drop_duplicates()
    rich = rich.merge(ordering, how="left", left_on="c_custkey", right_on="o_custkey")
    rich = rich[rich.o_custkey.isna()]
    sums = compute(rich.groupby("cntrycode").c_acctbal.agg(["count", "sum"])).sort_index()
    return sums.reset_index()


QUERIES = [q01, q02, q03, q04, q05, q06, q07, q08, q09, q10, q11, q12, q13, q14, q15, q16, q17, q18, q19, q20, q21, q22]


def write(frame, path):
    frame.to_parquet(path, index=False)


def case(query):
    return sql.case(lambda request: query(Tables(request)), write)


def setup():
    global client
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]), timeout=30)


if __name__ == "__main__":
    protocol.serve({query.__name__: case(query) for query in QUERIES}, setup, lambda: client.close())
