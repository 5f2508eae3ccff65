// Stands in for Worker where the site is read from a file: browsers start none from there. The
// script runs in a hidden frame instead, which has what the search asks of a worker.
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      const inside = frame.contentWindow
      inside.document.open()
      inside.document.write("<!doctype html><body></body>")
      inside.document.close()
      inside.postMessage = (data) =>
        this.dispatchEvent(new MessageEvent("message", { data }))
      const load = (source) =>
        new Promise((loaded, failed) => {
          const script = inside.document.createElement("script")
          script.src = source
          script.onload = loaded
          script.onerror = () => failed(new Error(`cannot load ${source}`))
          inside.document.body.append(script)
        })
      inside.importScripts = async (...sources) => {
        for (const source of sources) await load(source)
      }
      this.inside = inside
      this.ready = load(new URL(url, location.href).href)
    }

    postMessage(data) {
      this.ready.then(() =>
        this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })),
      )
    }
  }
  window.IFrameWorker = IFrameWorker
  window.Worker = IFrameWorker
}
