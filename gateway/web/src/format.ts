// Numbers as people read them.

const counts = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const NONE = "–";

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : counts.format(value);
}

export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return NONE;
  }
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let [size, unit] = [value, 0];
  while (size >= 1024 && unit < units.length - 1) {
    [size, unit] = [size / 1024, unit + 1];
  }
  return `${size.toFixed(unit === 0 || size >= 100 ? 0 : 1)} ${units[unit]}`;
}

export function milliseconds(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return NONE;
  }
  if (value < 1000) {
    return `${value.toFixed(value < 10 && !Number.isInteger(value) ? 2 : 0)} ms`;
  }
  const seconds = value / 1000;
  if (seconds < 60) {
    return `${seconds.toFixed(1)} s`;
  }
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Cuts the zeros that a decimal text has beyond the instrument's decimals. */
export function decimals(text: string, digits: number): string {
  const point = text.indexOf(".");
  return point < 0 ? text : text.slice(0, digits === 0 ? point : point + 1 + digits);
}

/** The time of day of the venue, in UTC, with milliseconds. */
export function clockTime(ms: number): string {
  return new Date(ms).toISOString().slice(11, 23);
}
