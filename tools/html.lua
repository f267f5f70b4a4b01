-- HTML in report.md is set as on GitHub: Pandoc's own HTML reader reads it. Comments vanish, as they should.
local function read(raw)
  return pandoc.read(raw.text, "html").blocks
end

return {{
  RawBlock = read,
  RawInline = function(raw) return pandoc.utils.blocks_to_inlines(read(raw)) end,
}}
