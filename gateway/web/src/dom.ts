// Elements, and changes to them that are none where nothing changed.

type Child = Node | string;

/** An element with a class and children. */
export function el<K extends keyof HTMLElementTagNameMap>(tag: K, className = "", ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  element.append(...children);
  return element;
}

export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

export function setClass(element: HTMLElement, className: string): void {
  if (element.className !== className) {
    element.className = className;
  }
}

/** A part of a page, with a heading; `widget` names it for styles and tests. */
export function panel(widget: string, title: string, ...children: Child[]): HTMLElement {
  const section = el("section", `panel ${widget}`, el("h2", "", title), ...children);
  section.dataset["widget"] = widget;
  return section;
}

/** A column of a table: its heading, what it says of a row, and whether that is a number. */
export interface Column<Row> {
  title: string;
  text: (row: Row) => string;
  hint?: string;
  className?: string | ((row: Row) => string);
}

/** A table whose rows are written over in place. */
export class Table<Row> {
  readonly element: HTMLElement;
  private readonly body = el("tbody");
  private readonly table: HTMLElement;
  private readonly empty: HTMLElement;

  constructor(
    private readonly columns: Column<Row>[],
    emptyText: string,
  ) {
    const heads = columns.map((it) => {
      const head = el("th", typeof it.className === "string" ? it.className : "", it.title);
      head.title = it.hint ?? "";
      return head;
    });
    this.empty = el("p", "empty", emptyText);
    this.table = el("table", "", el("thead", "", el("tr", "", ...heads)), this.body);
    this.element = el("div", "table", this.table, this.empty);
  }

  paint(rows: Row[]): void {
    this.empty.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
    while (this.body.rows.length > rows.length) {
      this.body.deleteRow(-1);
    }
    rows.forEach((row, index) => {
      const cells = (this.body.rows[index] ?? this.addRow()).cells;
      this.columns.forEach((column, at) => {
        const cell = cells[at]!;
        setText(cell, column.text(row));
        setClass(cell, typeof column.className === "function" ? column.className(row) : (column.className ?? ""));
      });
    });
  }

  private addRow(): HTMLTableRowElement {
    const row = this.body.insertRow();
    for (const { title } of this.columns) {
      // Where there is no room for a heading, each cell says what it is.
      row.insertCell().dataset["title"] = title;
    }
    return row;
  }
}

/** Names and numbers, as a list. */
export class Facts {
  readonly element = el("dl", "facts");
  private readonly values = new Map<string, HTMLElement>();

  paint(facts: [string, string][]): void {
    for (const [name, text] of facts) {
      let value = this.values.get(name);
      if (!value) {
        value = el("dd");
        this.values.set(name, value);
        this.element.append(el("div", "", el("dt", "", name), value));
      }
      setText(value, text);
    }
  }
}
