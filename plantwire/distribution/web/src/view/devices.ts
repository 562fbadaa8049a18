/**
 * All devices as rows of one table per kind: a column per metric, a value and a small trend per cell.
 *
 * In: the telemetry store's changes, the active alarms of each device. Out: rows that carry
 * `data-device-id`, `data-stale`, `data-alarm`; a callback when a row is chosen.
 * Guarantees: a row or cell is made once and then only changed; trends are drawn for rows in sight
 * only, and for no longer than `SPARK_BUDGET_MS` of a frame.
 * Not here: the large trend (`view/detail`).
 */

import { formatAge, formatValue, qualityNote } from "../format";
import type { View } from "../frame";
import type { Device, Metric, TelemetryListener } from "../telemetry-store";
import { labelOf, unitOf } from "../units";
import type { Severity } from "../wire";
import { byId, make, setData, setSeverityShape, setText, severityShape, textIn } from "./dom";
import { drawSpark, makeSpark, type Spark } from "./sparkline";

const SPARK_BUDGET_MS = 4;
/** Values change at most this often: nobody reads faster, and alarms find the page idle. */
const RENDER_EVERY_MS = 200;
/** For no longer than this do values give way to alarms that wait to be seen. */
const YIELD_MAX_MS = 600;
// The style sheet's measures (`style/devices.css`): what a group needs is known without asking the layout.
const NAME_WIDTH_PX = 146;
const CELL_WIDTH_PX = 106;
const PADDING_PX = 12;
const COLUMN_GAP_PX = 24;
const COLUMN_MIN_PX = 640;
/** How a device's radio does is of the device's own page, not of the plant's. */
const RADIO_PREFIX = "lorawan/";
/** A group's head and the space below the group, in rows. */
const HEAD_ROWS = 2;

/** The worst active alarm of a device, and of each of its metrics. */
export interface DeviceAlarms {
  readonly worst: Severity;
  readonly metrics: ReadonlyMap<string, Severity>;
}

interface Cell {
  readonly root: HTMLElement;
  readonly value: Text;
  spark: Spark | null;
  metric: Metric | null;
}

interface Row {
  readonly device: Device;
  readonly group: Group;
  readonly root: HTMLElement;
  readonly note: Text;
  readonly shape: SVGSVGElement;
  readonly cells: Map<string, Cell>;
  readonly dirtySparks: Set<Cell>;
  visible: boolean;
  alarms: DeviceAlarms | null;
}

interface Group {
  readonly kind: string;
  readonly root: HTMLElement;
  readonly table: HTMLElement;
  readonly head: HTMLElement;
  readonly count: Text;
  readonly columns: string[];
  readonly rows: Row[];
}

const byNumber = new Intl.Collator("en", { numeric: true }).compare;

export class DevicesView implements View, TelemetryListener {
  private readonly container = byId("devices");
  private readonly groups = new Map<string, Group>();
  private readonly rows = new Map<string, Row>();
  private readonly dirtyMetrics = new Set<Metric>();
  private readonly dirtyRows = new Set<Row>();
  private readonly inSight: IntersectionObserver;
  private renderedAt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private readonly rowOfElement = new WeakMap<Element, Row>();

  constructor(
    private readonly invalidate: (view: View) => void,
    private readonly plantNowMs: () => number,
    private readonly onChoose: (device: Device, metric: string | null) => void,
  ) {
    this.inSight = new IntersectionObserver((entries) => this.sightChanged(entries), {
      root: this.container,
      rootMargin: "120px",
    });
    this.container.addEventListener("click", (event) => this.clicked(event));
    new ResizeObserver(() => this.fit()).observe(this.container);
  }

  deviceAdded(device: Device): void {
    byId("devices-empty").hidden = true;
    const group = this.groups.get(device.kind) ?? this.addGroup(device.kind);
    const root = make("div", "row");
    root.setAttribute("role", "row");
    root.dataset["deviceId"] = device.id;
    const name = make("div", "row-name");
    name.setAttribute("role", "rowheader");
    const shape = severityShape("INFO");
    shape.classList.add("row-shape");
    const button = make("button", "row-button", device.id);
    button.type = "button";
    button.title = `${device.id}: show the trend`;
    const note = make("span", "row-note");
    const label = make("div", "row-label");
    label.append(button, note);
    name.append(shape, label);
    root.append(name);
    const row: Row = {
      device,
      group,
      root,
      note: textIn(note),
      shape,
      cells: new Map(),
      dirtySparks: new Set(),
      visible: false,
      alarms: null,
    };
    const at = group.rows.findIndex((other) => byNumber(other.device.id, device.id) > 0);
    if (at < 0) {
      group.rows.push(row);
      group.table.append(root);
    } else {
      group.table.insertBefore(root, (group.rows[at] as Row).root);
      group.rows.splice(at, 0, row);
    }
    for (const column of group.columns) this.addCell(row, column);
    setText(group.count, String(group.rows.length));
    this.fit();
    this.rows.set(device.id, row);
    this.rowOfElement.set(root, row);
    this.inSight.observe(root);
  }

  metricAdded(metric: Metric): void {
    const row = this.rows.get(metric.device.id);
    if (row === undefined || metric.name.startsWith(RADIO_PREFIX)) return;
    if (!row.group.columns.includes(metric.name)) this.addColumn(row.group, metric.name);
    const cell = row.cells.get(metric.name);
    if (cell !== undefined) cell.metric = metric;
  }

  metricChanged(metric: Metric): void {
    this.dirtyMetrics.add(metric);
    this.renderSoon();
  }

  trendChanged(metric: Metric): void {
    const row = this.rows.get(metric.device.id);
    const cell = row?.cells.get(metric.name);
    if (row === undefined || cell === undefined) return;
    row.dirtySparks.add(cell);
    this.dirtyRows.add(row);
    if (row.visible) this.renderSoon();
  }

  /** Marks rows and cells with their worst active alarm; a device not in `alarms` has none. */
  setAlarms(alarms: ReadonlyMap<string, DeviceAlarms>): void {
    for (const row of this.rows.values()) {
      const now = alarms.get(row.device.id) ?? null;
      if (now === null && row.alarms === null) continue;
      row.alarms = now;
      setData(row.root, "alarm", now?.worst ?? null);
      if (now !== null) setSeverityShape(row.shape, now.worst);
      for (const [name, cell] of row.cells) setData(cell.root, "alarm", now?.metrics.get(name) ?? null);
    }
  }

  /** Once a second: which devices have fallen silent. */
  tick(nowMs: number): void {
    let stale = 0;
    for (const row of this.rows.values()) {
      const isStale = row.device.isStale(nowMs);
      if (isStale) stale += 1;
      setData(row.root, "stale", isStale ? "true" : null);
      setText(row.note, isStale ? `no data ${formatAge(nowMs - row.device.seenAtMs)}` : "");
    }
    setText(byId("devices-note"), this.rows.size === 0 ? "" : `${this.rows.size} shown, ${stale} silent`);
  }

  render(urgent: boolean): boolean {
    const now = performance.now();
    if (urgent && now - this.renderedAt < YIELD_MAX_MS) return true;
    this.renderedAt = now;
    for (const metric of this.dirtyMetrics) {
      const cell = this.rows.get(metric.device.id)?.cells.get(metric.name);
      if (cell === undefined) continue;
      setText(cell.value, formatValue(metric.value));
      const note = qualityNote(metric.quality);
      setData(cell.root, "quality", note);
      cell.root.title = note === null ? "" : `${labelOf(metric.name)}: ${note}`;
      if (typeof metric.value === "number" && cell.spark === null) {
        cell.spark = makeSpark();
        cell.root.append(cell.spark.root);
      }
    }
    this.dirtyMetrics.clear();
    return this.renderSparks();
  }

  private renderSoon(): void {
    this.timer ??= setTimeout(
      () => {
        this.timer = undefined;
        this.invalidate(this);
      },
      Math.max(0, this.renderedAt + RENDER_EVERY_MS - performance.now()),
    );
  }

  private renderSparks(): boolean {
    const deadline = performance.now() + SPARK_BUDGET_MS;
    const nowMs = this.plantNowMs();
    for (const row of this.dirtyRows) {
      if (!row.visible) continue;
      for (const cell of row.dirtySparks) {
        if (performance.now() > deadline) return true;
        row.dirtySparks.delete(cell);
        const trend = cell.metric?.trend;
        if (cell.spark === null || trend === null || trend === undefined) continue;
        drawSpark(cell.spark, trend, nowMs);
      }
      this.dirtyRows.delete(row);
    }
    return false;
  }

  private addGroup(kind: string): Group {
    const root = make("section", "group");
    const title = make("h3", "group-title", kind);
    const count = make("span", "group-count");
    title.append(count);
    const table = make("div", "table");
    table.setAttribute("role", "table");
    table.setAttribute("aria-label", kind);
    const head = make("div", "row row-head");
    head.setAttribute("role", "row");
    const corner = make("div", "row-name");
    corner.setAttribute("role", "columnheader");
    corner.append(title);
    head.append(corner);
    table.append(head);
    root.append(table);
    const group: Group = { kind, root, table, head, count: textIn(count), columns: [], rows: [] };
    this.groups.set(kind, group);
    const after = [...this.groups.values()]
      .filter((other) => byNumber(other.kind, kind) > 0)
      .sort((a, b) => byNumber(a.kind, b.kind))[0];
    if (after === undefined) this.container.append(root);
    else this.container.insertBefore(root, after.root);
    return group;
  }

  private addColumn(group: Group, name: string): void {
    group.columns.push(name);
    const head = make("div", "cell-head");
    head.setAttribute("role", "columnheader");
    head.title = name;
    head.append(make("span", "cell-head-name", labelOf(name)), make("span", "unit", unitOf(group.kind, name)));
    group.head.append(head);
    for (const row of group.rows) this.addCell(row, name);
    const columns = group.columns.length;
    group.root.style.setProperty("--columns", String(columns));
    this.fit();
  }

  /**
   * Groups side by side where there is room for two or more, packed by their number of rows. Where a
   * group does not fit at all, cells flow under the device's name.
   */
  private fit(): void {
    const width = this.container.clientWidth - 2 * PADDING_PX;
    if (width <= 0) return;
    const columns = Math.max(1, Math.floor((width + COLUMN_GAP_PX) / (COLUMN_MIN_PX + COLUMN_GAP_PX)));
    const columnWidth = (width - COLUMN_GAP_PX * (columns - 1)) / columns;
    const flow = [...this.groups.values()].some((group) => widthOf(group) > width);
    setData(this.container, "layout", flow ? "flow" : "columns");
    this.container.style.setProperty("--groups", String(flow ? 1 : columns));
    for (const group of this.groups.values()) {
      const span = Math.min(columns, Math.ceil((widthOf(group) + COLUMN_GAP_PX) / (columnWidth + COLUMN_GAP_PX)));
      group.root.style.gridColumn = flow ? "" : `span ${span}`;
      group.root.style.gridRow = flow ? "" : `span ${group.rows.length + HEAD_ROWS}`;
    }
  }

  private addCell(row: Row, name: string): void {
    const root = make("div", "cell");
    root.setAttribute("role", "cell");
    root.dataset["metric"] = name;
    const unit = unitOf(row.group.kind, name);
    const label = make("span", "cell-label", unit === "" ? labelOf(name) : `${labelOf(name)}, ${unit}`);
    label.setAttribute("aria-hidden", "true");
    const value = make("span", "cell-value");
    root.append(label, value);
    row.root.append(root);
    row.cells.set(name, { root, value: textIn(value), spark: null, metric: row.device.metrics.get(name) ?? null });
  }

  private sightChanged(entries: readonly IntersectionObserverEntry[]): void {
    for (const entry of entries) {
      const row = this.rowOfElement.get(entry.target);
      if (row !== undefined) row.visible = entry.isIntersecting;
    }
    this.invalidate(this);
  }

  private clicked(event: MouseEvent): void {
    if (!(event.target instanceof Element)) return;
    const element = event.target.closest<HTMLElement>("[data-device-id]");
    const row = element === null ? undefined : this.rowOfElement.get(element);
    if (row === undefined) return;
    const metric = event.target.closest<HTMLElement>("[data-metric]")?.dataset["metric"];
    this.onChoose(row.device, metric !== undefined && row.device.metrics.has(metric) ? metric : null);
  }
}

function widthOf(group: Group): number {
  return NAME_WIDTH_PX + group.columns.length * CELL_WIDTH_PX;
}
