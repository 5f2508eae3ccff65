// The charts of the overview: drawn by uPlot, in the colours of the page, read again now and then.
"use strict";

(() => {
  const section = document.querySelector("[data-charts]");
  if (!section) return;

  const EVERY = 15_000;
  const HEIGHT = 190;
  const COLOURS = {
    light: {
      text: "#5b6472", grid: "#e4e7ec",
      created: "#8a94a6", delivered: "#18794e", retried: "#b7791f", dead: "#c62a2f",
      lines: ["#0b6bcb", "#c62a2f", "#18794e", "#9a5b00", "#7c3aed", "#0f766e", "#be185d", "#5b6472"],
    },
    dark: {
      text: "#a3adbd", grid: "#2a313d",
      created: "#7d8899", delivered: "#3ecf8e", retried: "#f0b429", dead: "#ff6b6b",
      lines: ["#5aa9ff", "#ff6b6b", "#3ecf8e", "#f0b429", "#b794f6", "#2dd4bf", "#f472b6", "#a3adbd"],
    },
  };
  const twoDigits = (number) => String(number).padStart(2, "0");
  const darkSystem = matchMedia("(prefers-color-scheme: dark)");
  let plots = [];
  let last = null;

  function colours() {
    const theme = document.documentElement.dataset.theme;
    return COLOURS[theme || (darkSystem.matches ? "dark" : "light")];
  }

  function short(number) {
    if (number >= 1e6) return `${+(number / 1e6).toFixed(1)}M`;
    if (number >= 1e4) return `${+(number / 1e3).toFixed(1)}k`;
    return String(+number.toFixed(number < 10 ? 2 : 0));
  }

  function moment(seconds, withDay) {
    const at = new Date(seconds * 1000);
    const time = `${twoDigits(at.getHours())}:${twoDigits(at.getMinutes())}`;
    return withDay ? `${twoDigits(at.getMonth() + 1)}-${twoDigits(at.getDate())} ${time}` : time;
  }

  function linesOf(figure, values, palette) {
    const named = figure.dataset.lines ? JSON.parse(figure.dataset.lines) : null;
    return Object.keys(values).map((name, place) => ({
      name: named ? named[name] : name,
      colour: named ? palette[name] : palette.lines[place % palette.lines.length],
      dashed: name === "created",
      values: values[name],
    }));
  }

  function draw(figure, at, values) {
    const box = figure.querySelector(".chart");
    const percent = figure.dataset.unit === "%";
    const palette = colours();
    const lines = linesOf(figure, values, palette);
    const some = lines.some((line) => line.values.some((value) => percent ? value !== null : value));
    figure.dataset.state = some ? "drawn" : "empty";
    if (!some) {
      box.textContent = section.dataset.none;
      return null;
    }
    box.textContent = "";
    const unit = figure.dataset.unit;
    const long = at[at.length - 1] - at[0] > 90_000;
    const axis = { stroke: palette.text, grid: { stroke: palette.grid, width: 1 },
      ticks: { stroke: palette.grid, width: 1, size: 4 }, font: "12px system-ui, sans-serif" };
    return new uPlot({
      width: box.clientWidth,
      height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      scales: {
        x: { time: true },
        y: { range: (_plot, _low, high) => [0, percent ? 100 : high * 1.1] },
      },
      axes: [
        { ...axis, values: (_plot, splits) => splits.map((split) => moment(split, long)),
          space: long ? 90 : 60, size: 28 },
        { ...axis, size: 48, values: (_plot, splits) => splits.map((split) => short(split) + unit) },
      ],
      series: [
        { label: "\u00a0", value: (_plot, value) => (value == null ? "–" : moment(value, long)) },
        ...lines.map((line) => ({
          label: line.name,
          stroke: line.colour,
          width: 1.75,
          dash: line.dashed ? [4, 4] : undefined,
          spanGaps: false,
          points: { show: percent, size: 5, fill: line.colour },
          value: (_plot, value) => (value == null ? "–" : short(value) + unit),
        })),
      ],
    }, [at, ...lines.map((line) => line.values)], box);
  }

  function drawAll() {
    if (!last) return;
    plots.forEach(([, plot]) => plot && plot.destroy());
    plots = [...section.querySelectorAll("[data-chart]")].map((figure) =>
      [figure, draw(figure, last.at, last[figure.dataset.chart])]);
  }

  async function read() {
    if (document.hidden) return;
    try {
      const answer = await fetch(section.dataset.charts, { headers: { Accept: "application/json" } });
      if (!answer.ok || answer.redirected) return;
      last = await answer.json();
    } catch {
      return; // Gone for a moment: the next turn asks again.
    }
    // Not under somebody's pointer: the values that are being read would vanish.
    if (!plots.length || !section.matches(":hover")) drawAll();
  }

  let resizing = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(resizing);
    resizing = requestAnimationFrame(() => plots.forEach(([figure, plot]) =>
      plot && plot.setSize({ width: figure.querySelector(".chart").clientWidth, height: HEIGHT })));
  });
  darkSystem.addEventListener("change", drawAll);
  new MutationObserver(drawAll).observe(document.documentElement,
    { attributes: true, attributeFilter: ["data-theme"] });
  setInterval(read, EVERY);
  document.addEventListener("visibilitychange", read);
  read();
})();
