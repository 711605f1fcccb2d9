"""The viewer in a real browser. Called by tests/it/browser.rs with the listener's URL and the pid of
QuestDB; the table behind the panel "Samples lost" of the System dashboard is ruined beforehand.

Ends with 0 when all is as it should be, else with what was missing.
"""

import os
import signal
import sys
import time
from urllib.parse import parse_qs, urlsplit

from chromium import Chromium, Failed

BASE = sys.argv[1]
QUESTDB = int(sys.argv[2])
DASHBOARDS = ["alerts", "exchange", "health", "pipeline", "system", "trading"]

# Functions for the expressions below.
PRELUDE = """
window.panel = (title) => [...document.querySelectorAll('.panel')]
    .find((one) => one.getAttribute('aria-label') === title);
window.texts = (selector, root = document) => [...root.querySelectorAll(selector)]
    .map((one) => one.textContent);
window.failed = () => [...document.querySelectorAll('.panel.failed')]
    .map((one) => one.getAttribute('aria-label'));
window.middle = (one) => { const box = one.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2, box.width]; };
true
"""
STATUS = "texts('.tile .value', panel('Status'))"
NAMES = "texts('.tile .name', panel('Status'))"


def check(holds, what):
    if not holds:
        raise Failed(what)


def equal(found, wanted, what):
    check(found == wanted, f"{what}: {found!r} instead of {wanted!r}")


def opened(page, dashboard, query="?from=now-15m&to=now"):
    page.open(f"{BASE}/d/periscope-{dashboard}{query}")
    page.wait("the page", "document.querySelectorAll('.panel').length > 3")
    page.run(PRELUDE)
    page.wait("all panels in view to be answered",
              "document.querySelectorAll('.loading').length === 0 && "
              "document.querySelectorAll('.panel canvas, .panel .tile, .panel .no-value, .panel table').length > 0")


def address(page):
    return parse_qs(urlsplit(page.run("location.href")).query)


def panels_show_values(page):
    opened(page, "health")
    page.wait("four daemons", f"{NAMES}.length >= 4 && {STATUS}.every((text) => text !== '')")
    check("running" in page.run(STATUS), "no daemon is running")
    page.wait("lines with a legend", "panel('Time to answer a poll').querySelectorAll('canvas').length === 1 "
              "&& / ms|µs|s$/.test(texts('.legend td', panel('Time to answer a poll'))[0] || '')")
    page.wait("states", "texts('.legend span', panel('Status over time')).includes('running')")
    equal(page.run("failed()"), [], "failed panels of Health")


def a_password_in_the_address_is_no_hindrance(page):
    """Browsers refuse to fetch a path relative to such an address."""
    host = urlsplit(BASE).netloc
    page.open(f"http://any:password@{host}/d/periscope-health?from=now-15m&to=now")
    page.wait("the daemons", "document.querySelectorAll('.tile').length >= 4")
    page.open(f"http://any:password@{host}/")
    page.wait("the status page", "document.querySelectorAll('#daemons tr').length >= 4")
    # It renews itself every two seconds; a failure would be told.
    page.run("document.getElementById('daemons').replaceChildren()")
    page.wait("the status page again", "document.querySelectorAll('#daemons tr').length >= 4")
    check(page.run("document.getElementById('lost').hidden"), "the status page is lost")


def time_picker_changes_them(page):
    page.run("document.querySelector('[data-name=time] summary').click()")
    page.run("document.querySelector('[data-name=time] [data-from=\"now-5m\"]').click()")
    equal(address(page)["from"], ["now-5m"], "the address after a choice")
    # A time before anything was stored: no daemon, and what is said instead.
    page.run("document.querySelector('[data-name=time] summary').click()")
    page.run("""{ const [from, to] = document.querySelectorAll('[data-name=time] input');
        from.value = '2024-01-01T00:00:00'; to.value = '2024-01-01T06:00:00';
        document.querySelector('[data-name=time] form').requestSubmit(); }""")
    page.wait("no daemon in 2024", "panel('Status').innerText.includes('no daemon has reported yet')")
    equal(page.run("document.querySelector('[data-name=time] summary').textContent"),
          "2024-01-01 00:00:00 to 2024-01-01 06:00:00", "the picker")
    page.run("document.querySelector('[data-name=time] summary').click()")
    page.run("document.querySelector('[data-name=time] [data-from=\"now-15m\"]').click()")
    page.wait("the daemons again", f"{STATUS}.length >= 4")
    check(page.run("document.querySelector('#times select').value") == "10s", "the dashboard's own refresh")


def variables_narrow_and_go_along(page):
    name = page.run(NAMES)[0].split(" · ")[0]
    page.run("document.querySelector('[data-name=var-daemon] summary').click()")
    box = f"[data-name=var-daemon] input[value={name!r}]"
    page.wait("the list of daemons", f"document.querySelector({box!r}) !== null")
    page.run(f"document.querySelector({box!r}).click()")
    page.wait("one daemon alone", f"{NAMES}.length === 1 && {NAMES}[0].startsWith({name!r})")
    equal(address(page)["var-daemon"], [name], "the address")
    link = page.run("[...document.querySelectorAll('#dashboards a')].find((a) => a.textContent === 'Exchange').href")
    query = parse_qs(urlsplit(link).query)
    equal((query["var-daemon"], query["from"]), ([name], ["now-15m"]), "the link to another dashboard")
    page.run("document.querySelector('[data-name=var-daemon] input[data-all]').click()")
    page.wait("all daemons again", f"{NAMES}.length >= 4")
    check("var-daemon" not in address(page), "All is in the address")
    page.run("document.querySelector('h1').dispatchEvent(new PointerEvent('pointerdown', { bubbles: true }))")


def keys_do_what_the_pointer_does(page):
    page.run("document.querySelector('[data-name=time] summary').focus()")
    page.key("Enter", 13)
    # Chromium's own way of opening needs the character too.
    page.send("Input.dispatchKeyEvent", {"type": "char", "text": "\r"})
    page.wait("the picker to open", "document.querySelector('[data-name=time]').open || "
              "(document.querySelector('[data-name=time] summary').click(), false)")
    page.key("Escape", 27)
    page.wait("Escape to close it", "!document.querySelector('[data-name=time]').open")
    equal(page.run("document.activeElement.tagName"), "SUMMARY", "focus after Escape")
    page.run("panel('Time to answer a poll').scrollIntoView({ block: 'center' })")
    page.wait("the chart to be there", "!panel('Time to answer a poll').querySelector('.body').hidden && "
              "panel('Time to answer a poll').querySelector('canvas') !== null")
    # A chart that is just drawn anew loses its crosshair: pressed again, as a person would.
    for _ in range(20):
        page.run("panel('Time to answer a poll').querySelector('.plot').focus()")
        page.key("ArrowLeft", 37)
        if page.run("!document.querySelector('.tooltip').hidden"):
            break
        time.sleep(0.5)
    page.wait("the crosshair by key", "!document.querySelector('.tooltip').hidden")
    page.key("Escape", 27)
    page.wait("no crosshair", "document.querySelector('.tooltip').hidden")


def pointer_shares_its_time_and_zooms(page):
    over = "panel('Time to answer a poll').querySelector('.u-over')"
    x, y, width = page.run(f"middle({over})")
    moved = "getComputedStyle(panel('Fetches per minute').querySelector('.u-cursor-x')).transform"
    page.wait("the chart below", "panel('Fetches per minute').querySelector('.u-cursor-x') !== null")
    # The newest sample is at the right end.
    page.move(x, y)
    page.move(x + width * 0.45, y)
    page.wait("the tooltip", "/\\d\\d:\\d\\d:\\d\\d/.test(document.querySelector('.tooltip .time').textContent)")
    left = page.run(moved)
    page.move(x + width * 0.3, y)
    page.wait("the crosshair on another chart", f"{moved} !== {left!r}")
    before = address(page)
    page.drag((x - width * 0.2, y), (x + width * 0.4, y))
    page.wait("the range of the drag", "/from=\\d+&to=\\d+/.test(location.search)")
    after = address(page)
    span = int(after["to"][0]) - int(after["from"][0])
    check(400_000 < span < 700_000, f"60 % of 15 minutes: {span} ms, before {before}")


def a_failing_query_fails_alone(page):
    opened(page, "system", "?from=now-15m&to=now&refresh=5s")
    page.run("panel('Samples lost').scrollIntoView()")
    page.wait("the error on its panel", "failed().length === 1 && failed()[0] === 'Samples lost'")
    text = page.run("panel('Samples lost').innerText")
    check("questdb:" in text and "Statement" in text, f"what happened and with which statement: {text}")
    page.wait("its neighbours", "texts('.tile .value', panel('Parts')).includes('ok')")
    equal(page.run("failed()"), ["Samples lost"], "failed panels of System")


def every_dashboard_is_whole(page):
    for dashboard in DASHBOARDS:
        opened(page, dashboard)
        page.resize(1400, 2600)
        count = page.run("document.querySelectorAll('.panel').length")
        page.wait(f"all panels of {dashboard}", """[...document.querySelectorAll('.panel')].every((one) =>
            one.classList.contains('failed') || one.querySelector('canvas, .tile, .bar-row, table, .no-value'))""")
        wanted = ["Samples lost"] if dashboard == "system" else []
        equal(page.run("failed()"), wanted, f"failed panels of {dashboard}")
        equal(page.run("document.querySelectorAll('.unsupported').length"), 0, f"unsupported on {dashboard}")
        check(count >= 6, f"{dashboard} has {count} panels")
        page.resize(390, 800)
        page.wait("phone width", "document.documentElement.scrollWidth <= 390")
        page.resize(1400, 1000)


def unknown_things_are_said(page):
    """Kinds of panels that no dashboard uses, and hostile text, by the viewer's own modules."""
    told = page.run("""(async () => {
        const { Panel } = await import('/web/viewer/panel.js');
        const hostile = '<img src=x onerror=window.hacked=1>';
        const frame = { cut: true, columns: [
            { name: 'time', kind: 'time', values: [1000, 2000] },
            { name: 'daemon', kind: 'text', values: [hostile, hostile] },
            { name: 'value', kind: 'number', values: [10, 75] } ] };
        const context = { marks: () => [], zoom() {}, view() {} };
        const told = {};
        for (const type of ['gauge', 'text', 'stat', 'bargauge', 'table', 'piechart']) {
            const panel = new Panel({ id: 1, type, title: hostile, description: '**a** ' + hostile,
                options: { content: '**bold** ' + hostile }, targets: [],
                fieldConfig: { defaults: { unit: type === 'stat' ? 'furlongs' : 'percent' }, overrides: [] } }, context);
            document.querySelector('.grid').append(panel.made);
            panel.update([{ frame }], { from: 0, to: 3000 });
            told[type] = panel.made.innerText;
            told.images = (told.images || 0) + panel.made.querySelectorAll('img').length;
            panel.made.remove();
        }
        told.hacked = window.hacked;
        return told;
    })()""")
    equal((told["images"], told.get("hacked")), (0, None), "hostile text became HTML")
    for kind in ("gauge", "stat", "bargauge", "table"):
        check("75" in told[kind] and "<img" in told[kind] and "Not everything" in told[kind], f"{kind}: {told[kind]}")
    check("bold" in told["text"] and "**" not in told["text"].replace("**a**", ""), told["text"])
    check("panels of type piechart" in told["piechart"], told["piechart"])
    check("unit furlongs" in told["stat"], told["stat"])


def values_and_states_are_read_rightly(page):
    """The pure parts, by their modules: units, mappings, thresholds, stretches of states, bridged nulls."""
    told = page.run("""(async () => {
        const { display, formatNumber } = await import('/web/viewer/format.js');
        const { bridged, series, stretches } = await import('/web/viewer/frames.js');
        const { moment, resolve } = await import('/web/viewer/time.js');
        const numbers = [[1536, 'bytes'], [0.256, 'percentunit'], [12.345, 'percent'], [0.25, 'ms'], [90, 's'],
            [86400 * 3, 's'], [1234567, 'short'], [1234.5, 'locale'], [12, 'cpm'], [2500, 'wps'], [0, 's'], [3, 'none'],
            [-1536, 'bytes'], [3600, 's']].map(([value, unit]) => formatNumber(value, unit));
        const steps = { steps: [{ value: null, color: '#000001' }, { value: 5, color: '#000002' }] };
        const colors = [4.9, 5, null].map((value) => display(value, { thresholds: steps, noValue: 'nothing' }));
        const state = display(1, { mappings: [{ type: 'value', options: { 1: { text: 'up', color: '#00ff00' } } }] });
        const range = { from: 0, to: 1000, now: 900 };
        const lanes = (times, values, span) => stretches({ times, values }, range, span)
            .map(({ from, to, value }) => [from, to, value]);
        const frame = { columns: [{ name: 'time', kind: 'time', values: [1, 1, 2] },
            { name: 'a', kind: 'text', values: ['x', 'y', 'x'] }, { name: 'value', kind: 'number', values: [1, 2, 3] }] };
        const made = series({ fieldConfig: { defaults: { displayName: 'is ${__field.labels.a}' } } }, [frame]);
        return {
            numbers, colors: colors.map(({ text, color }) => [text, color]), state: [state.text, state.color],
            regular: lanes([0, 50, 100, 150, 200, 250, 300, 350, 400, 450], [1, 1, 1, 1, null, null, 2, 2, 2, 2], 0),
            spanned: lanes([0, 50, 100, 150, 200, 250, 300, 350, 400, 450], [1, 1, 1, 1, null, null, 1, 1, 1, 1], 150),
            events: lanes([10, 20, 700], [1, 2, 1], 0),
            bridged: bridged([0, 1, 2, 9, 10], [1, null, 3, null, 5], 3).map((value) => String(value)),
            made: made.map(({ name, times, values }) => [name, times, values]),
            times: [moment('now-5m', 1e6), moment('now', 7), moment('123', 0), moment('yesterday', 0),
                resolve({ from: 'now', to: 'now-1h' }, 1e9)],
        };
    })()""")
    equal(told["numbers"], ["1.5 KiB", "25.6%", "12.3%", "250 µs", "1.5 mins", "3 days", "1.23 Mil", "1,234.5",
                            "12 /min", "2.5 K rows/s", "0 s", "3", "-1.5 KiB", "1 hour"], "units")
    equal(told["colors"], [["4.9", "#000001"], ["5", "#000002"], ["nothing", "#808080"]], "thresholds")
    equal(told["state"], ["up", "#00ff00"], "mappings")
    equal(told["regular"], [[0, 200, 1], [300, 500, 2]], "states with a hole")
    equal(told["spanned"], [[0, 500, 1]], "states over a short hole")
    equal(told["events"], [[10, 20, 1], [20, 700, 2], [700, 900, 1]], "events hold until the next one")
    equal(told["bridged"], ["1", "undefined", "3", "null", "5"], "nulls in a line")
    equal(told["made"], [["is x", [1, 2], [1, 3]], ["is y", [1], [2]]], "series by labels")
    equal(told["times"], [700000, 7, 123, None, None], "times")


def the_database_goes_and_comes_back(page):
    opened(page, "health")
    page.wait("the daemons", f"{STATUS}.length >= 4")
    # Nobody refreshes: the page comes back nevertheless.
    page.run("{ const list = document.querySelector('#times select'); list.value = '';"
             " list.dispatchEvent(new Event('change')); }")
    os.kill(QUESTDB, signal.SIGKILL)
    page.run("document.querySelector('[aria-label=\"Refresh now\"]').click()")
    page.wait("panels that say it", "panel('Status').innerText.includes('comes back by itself') || "
              "(document.querySelector('[aria-label=\"Refresh now\"]').click(), false)")
    page.wait("the daemons again", f"{STATUS}.length >= 4 && !failed().includes('Status')", limit=120)
    # What is out of sight is asked for when it is looked at.
    page.run("scrollTo(0, document.body.scrollHeight)")
    page.wait("the panels below", "failed().length === 0")


def main():
    steps = [
        a_password_in_the_address_is_no_hindrance, panels_show_values, time_picker_changes_them,
        variables_narrow_and_go_along, keys_do_what_the_pointer_does, pointer_shares_its_time_and_zooms,
        a_failing_query_fails_alone, every_dashboard_is_whole, unknown_things_are_said,
        values_and_states_are_read_rightly, the_database_goes_and_comes_back,
    ]
    with Chromium() as page:
        for step in steps:
            start = time.monotonic()
            try:
                step(page)
            except Failed as failure:
                sys.exit(f"{step.__name__}: {failure}")
            print(f"{step.__name__}: {time.monotonic() - start:.1f} s", flush=True)
        check_quiet(page)


def check_quiet(page):
    if page.problems:
        sys.exit("the console says:\n" + "\n".join(page.problems))
    own = urlsplit(BASE).netloc
    asked = [urlsplit(url) for url in page.requests]
    # data: is a picture in the browser's own style sheet, no request.
    asked = [url for url in asked if url.scheme not in ("about", "data")]
    others = {url.geturl() for url in asked if url.netloc.split("@")[-1] != own}
    if others:
        sys.exit(f"requests to other hosts: {others}")


main()
