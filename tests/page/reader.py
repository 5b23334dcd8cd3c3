"""Reads the page as a person would: by titles, legends and tables."""

# What a person would look for, by the titles of the panels.
READ = """
globalThis.titleOf = (panel) => panel.querySelector("h3").textContent;
globalThis.panels = () =>
  [...document.querySelectorAll("section:not([hidden]) article:not([hidden])")];
globalThis.panelOf = (title) => panels().find((each) => titleOf(each) === title);
globalThis.entry = (node) => [node.childNodes[1].data.trim(), node.querySelector("b").textContent];
globalThis.legendOf = (title) =>
  Object.fromEntries([...panelOf(title).querySelectorAll(".legend li")].map(entry));
globalThis.momentOf = (title) => panelOf(title).querySelector(".moment").textContent;
globalThis.rowsOf = (title) => [...panelOf(title).querySelectorAll("tbody tr")]
  .map((row) => [...row.cells].map((each) => each.textContent));
globalThis.figuresShown = () => [...document.querySelectorAll("#figures > div")]
  .map((each) => [...each.children].map((one) => one.textContent));
globalThis.hide = (hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
};
globalThis.timers = (left) => new Promise((done) => {
  const next = () => left-- ? setTimeout(next, 1000) : done();
  next();
});
globalThis.boxOf = (title) => {
  const box = panelOf(title).querySelector("svg.time").getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
};
"""


class Reader:
    """Reads the page as a person would: by the titles of its panels."""

    def __init__(self, page):
        self._page = page
        page.run(READ)

    def legend(self, title):
        """Of the panel's charts, value by name."""
        return {
            name: plain(value) for name, value in self._page.run(f"legendOf('{title}')").items()
        }

    def moment(self, title):
        """The one that was chosen with the pointer or the keyboard."""
        return self._page.run(f"momentOf('{title}')")

    def rows(self, title):
        return [[plain(cell) for cell in row] for row in self._page.run(f"rowsOf('{title}')")]

    def panel(self, title):
        """All its text."""
        return plain(self._page.run(f"panelOf('{title}').innerText"))

    def text(self):
        return plain(self._page.text())

    def titles(self):
        return self._page.run("panels().map(titleOf)")

    def figures(self):
        """The large figure and what it is of, by name."""
        return {
            name: (plain(figure), plain(of))
            for name, figure, of in self._page.run("figuresShown()")
        }


def banner(page):
    return page.run("document.querySelector('[role=status]').innerText")


def plain(text):
    """With ordinary spaces."""
    return text and text.replace("\u202f", " ")
