// Draws each figure over the time that this page has been open. Without a script there are the figures alone.
"use strict";
const MOST = 90;
const seen = [];

const draw = () => {
  const charts = [...document.querySelectorAll("[data-live]")];
  charts.forEach((chart, index) => {
    const values = (seen[index] ??= []);
    values.push(Number(chart.dataset.live));
    if (values.length > MOST) values.shift();
    const low = Math.min(...values);
    const range = Math.max(...values) - low;
    const place = (value, at) => {
      const x = values.length > 1 ? (100 * at) / (values.length - 1) : 100;
      const y = range ? 23 - (22 * (value - low)) / range : 12;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    };
    const points = values.map(place);
    if (points.length === 1) points.unshift(points[0].replace(/^[^,]+/, "0"));
    chart.querySelector("polyline").setAttribute("points", points.join(" "));
    chart.querySelector("path").setAttribute("d", `M0,24L${points.join("L")}L100,24Z`);
  });
};
draw();
document.body.addEventListener("htmx:afterSettle", draw);
