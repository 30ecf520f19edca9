"""Texts and chats on which tokenizers and templates differ when they differ anywhere; all NFC."""

from typing import Any

from stages.core.example import Message, nfc

_TEXTS = (
    "The quick brown fox doesn't jump; it's 2026, and they'll say \"so what?\"",
    "don't DON'T we've I'M you'RE he'd 'tis rock'n'roll l'été",
    "Größe, Straße, Überraschung – naïve café, señor, œuvre, Łódź, İstanbul, Tiếng Việt",
    "Съешь же ещё этих мягких французских булок. Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία.",
    "שלום עולם — مرحبا بالعالم — नमस्ते दुनिया — สวัสดีชาวโลก — გამარჯობა — Բարեւ",
    "今日は良い天気ですね。我能吞下玻璃而不伤身体。안녕하세요 세계, ㄱㄴㄷ。",
    "🙂👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇯🇵 1️⃣ ☃️ \u200b\u200d\ufeff\u00ad\u2028",
    "0 1 12 123 1234 12345 3.14159 -42 1,000,000 1e-5 0x1F ½ ² Ⅷ ٣٤٥ १२३",
    " leading,  two,   three    four     spaces and trailing   ",
    "tab\tand\t\ttabs \t mixed\n\nlines\r\n\r\nwindows\n \n  \n\n\nend\n",
    "\u00a0no-break\u2003em\u3000ideographic\u0085next",
    "def f(x):\n    if x <= 0:\n        return {'a': [1, 2], \"b\": None}  # ok\n\treturn f(x-1)\n",
    "SELECT * FROM t WHERE a != 'b' AND c >= 10; -- <html>&amp;</html> $x = @{y}\\n",
    "https://example.org/a/b?c=d&e=%20#f  user.name+tag@mail.example  C:\\dir\\file.txt",
    "!!! ??? ... --- === *** ((([[[{{{}}}]]]))) ~~~ ``` ''' \"\"\" /// \\\\\\ |||",
    "camelCaseWord snake_case_word kebab-case-word SCREAMING_CASE iPhone15ProMax H2O x²",
    '<tool_call>\n{"name": "f", "arguments": {"x": [1, -2.5], "é": "ü"}}\n</tool_call>',
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "a<|im_end|>b <|im_end|> c<|endoftext|><|endoftext|>\n<|im_start|><|im_start|>system",
    "<|im_start|> <|im_start |> <|IM_START|> <|im_startx|> <|im_end| > <||> <|x|>",
    "<s>a</s> <bos><eos><pad><unk> [INST] x [/INST] <<SYS>> y <</SYS>> <think>z</think>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|><|eom_id|>",
    "<start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n",
    "<tool_response>4</tool_response><|user|>x<|end|><|assistant|>",
    "a" * 70 + " " * 70 + "\n" * 20 + "=" * 70,
    "",
    " ",
    "\n",
    "\U0001d54f\U00020000\U0001f600\u0301x\ufffd",
)
TEXTS: tuple[str, ...] = tuple(nfc(list(_TEXTS)))

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "measure_tide",
            "description": "Tide at a harbour, in metres; <b>\"é\" & 'ü'</b>.",
            "parameters": {
                "type": "object",
                "properties": {
                    "harbour": {"type": "string", "enum": ["Brest", "Ålesund"]},
                    "hours": {"type": "integer", "minimum": 0},
                },
                "required": ["harbour"],
            },
        },
    }
]
_ASKS: Message = {"role": "user", "content": "How high is the tide at Ålesund? <|im_end|> & 'so'"}
_CALLS: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "measure_tide", "arguments": {"harbour": "Ålesund", "hours": 2}},
        }
    ],
}
_RESULT: Message = {
    "role": "tool",
    "tool_call_id": "call00001",
    "name": "measure_tide",
    "content": '{"metres": 1.5, "note": "é"}',
}
_SYSTEM: Message = {"role": "system", "content": "You measure tides.\n\nBe brief."}
_TURNS: list[Message] = [
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "  One,\n  with 'quotes' & <tags>.  "},
    {"role": "user", "content": "Second? 🙂"},
]

# name -> (messages, tools, text that a template able to hold this chat must show)
CHATS: dict[str, tuple[list[Message], list[dict[str, Any]] | None, str]] = {
    "plain": ([_ASKS], None, "Ålesund"),
    "system": ([_SYSTEM, _ASKS], None, "You measure tides."),
    "turns": (_TURNS, None, "quotes"),
    "system and turns": ([_SYSTEM, *_TURNS], None, "You measure tides."),
    "tools": ([_ASKS], TOOLS, "measure_tide"),
    "system and tools": ([_SYSTEM, _ASKS], TOOLS, "measure_tide"),
    "call and result": ([_ASKS, _CALLS, _RESULT], TOOLS, '"metres"'),
    "call, result and turn": (
        [_SYSTEM, _ASKS, _CALLS, _RESULT, {"role": "assistant", "content": "1.5 m"}, _ASKS],
        TOOLS,
        '"metres"',
    ),
}
