#!/usr/bin/env python3
"""Writes texts.jsonl: hostile and ordinary texts, one JSON string a line, the same on every run."""
import json
import os
import random

R = random.Random(20261124)
T = []


def add(*texts):
    for t in texts:
        t.encode("utf-8")  # a lone surrogate is no text
        T.append(t)


SPACES = [chr(c) for c in (9, 10, 11, 12, 13, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)]
LIKE_SPACES = [chr(c) for c in (0x1C, 0x1D, 0x1E, 0x1F, 0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x2800, 0x3164, 0xAD)]
SUFFIX = ["s", "t", "m", "d", "re", "ve", "ll"]

# white space: each kind before, between and after words, doubled, and all pairs of the common ones
add("", *SPACES, *LIKE_SPACES)
for s in SPACES + LIKE_SPACES:
    add(f"a{s}b", f"{s}{s}a {s}b{s}", f"x{s}1{s}!{s}\n{s}y")
for a in " \n\r\t":
    for b in " \n\r\t":
        add(f"a{a}{b}b", f"{a}{b}", f"1{a}{b}{a}!")
for n in (2, 3, 4, 5, 7, 8, 15, 16, 17, 30, 31, 32, 33, 40, 63, 64, 65, 100):
    add(" " * n, " " * n + "word", "word" + " " * n, "a" + "\n" * n + "b", "\t" * n + "x", "\r\n" * n, " \n" * n + "z", "=" * n, "-" * n + ">")
add("line one\nline two\r\nline three\rline four\n\r\n\n", "trailing \n", " leading", "tab\tsep\tvalues\n", "   \n  \n \n\n  x", "\n\n\n   indented\n")

# apostrophes: straight, typographic, in all cases, with the long s, at borders
for q in ("'", "\u2019", "\u02BC", "\uFF07", "`"):
    for s in SUFFIX:
        add(f"I{q}{s} it{q}{s.upper()} {q}{s} {q}{s}x{q}{s.title()}")
add("it'\u017F", "'\u017F 'S '\u017F\u017F x'\u017Fy", "don't DON'T Don'T dOn'T", "'''s''ll''", "rock'n'roll 'tis '90s y'all'd've", "''", "'", "'s", "'R 'RE 'rE 'l 'L 'Ll 'v 'Ve 'VE", "\u212A's \u212A'\u212A", "'\u0130 '\u0131")

# digits
for n in range(1, 13):
    add("1234567890123"[:n], f" {'9' * n} ", f"x{'7' * n}y")
add("1,234,567.89", "3.14159265358979323846", "0x1F 0b1010 1e-9", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "１２３４５", "²³¹¼½¾", "x²+y³=z¹", "Ⅻ ⅷ ↂ", "①②③④⑤⑥⑦⑧⑨⑩", "𝟎𝟏𝟐𝟑𝟗", "〇一二三四五", "৳৫৬৭", "1️⃣2️⃣3️⃣", "2024-11-24T08:31:59Z", "+1 (555) 010-9999", "192.168.0.1:8080", "99999999999999999999999999999999", "\U00011DE0\U00011DE9 \U00016FF4", "௧௨௩ ௰௱௲", "𒐀𒐁 𐄇𐄈", "5'11\" 6'2", "10⁻⁹ CO₂ H₂O")

# Latin, Greek, Cyrillic with and without composition; case that does not map one to one
add("é", "e\u0301", "re\u0301sume\u0301 résumé", "a\u0300" * 40, "A\u030A Å \u212B", "ﬁ ﬂ ﬀ ﬃ ﬆ", "ß ẞ ss SS", "İstanbul ıI iİ", "i\u0307 I\u0307", "Ǆ ǅ ǆ Ǉ ǈ ǉ", "ŉ ʼn", "Ελληνικά ΣΣς ᾳ ᾼ ῼ", "Привет, как дела? Ёлка й и\u0306", "q\u0307\u0323 q\u0323\u0307", "\u1E9B\u0323", "\u0344 \u0308\u0301", "\u03D3 \u03D4 \u03A9 \u2126", "đ Ð ð ø Ø ł Ł", "naïve café façade jalapeño Zoë", "Tiếng Việt: Xin chào thế giới", "ộ o\u0323\u0302 o\u0302\u0323 ô\u0323", "Čeština žluťoučký kůň", "ÅÄÖ åäö", "ĲĳŁ", "ꙋ Ѡ ҆҇", "Ծ և ﬓ ﬔ", "Ა ა Ⴀ ⴀ", "ᏸ Ꭰ ꭰ", "\u0378 \u0530 \uFFFF".replace("\uFFFF", "\uFFFD"))
# combining marks in great number, wrong order, at the start, after spaces and controls
add("\u0301", " \u0301", "\u0301a", "\n\u0301", "a" + "\u0301\u0316\u0327" * 30, "Z̷̢̛͓̈́a̸͎͊l̵̰̀g̶̱̽ǫ̸͝", "a\u20DD\u20E3 \u20D0", "\u0300\u0301\u0302 \u0345\u0301", "a\u05B0\u05BC\u05B4", "\u0F71\u0F72\u0F74", "\u0CC6\u0CC2\u0CD5", "\u09C7\u09BE", "x\u034F\u0301", "e\u200D\u0301", "a\u0315\u0300\u05AE\u0300\u0062", "\u0958 \u0915\u093C", "\u2ADC \u2ADD\u0338", "\uFB1D \u05D9\u05B4", "\uFB2C", "\U0001D15E \U0001D157\U0001D165", "\u0340\u0341\u0343", "\u2000\u2001 \u2329\u232A", "\uF900\uFA0A \U0002F800", "\u11935\u11930", "\U00011935\U00011930 \U00011938", "\U000105D2\U00000307 \U000105C9", "a\u1ABF\u0301 a\u0301\u1ABF", "\U00016121 \U0001611E\U0001611E")
# Hangul: syllables, jamo that compose, jamo that do not, half width
add("안녕하세요 세계", "\u1112\u1161\u11AB\u1100\u1173\u11AF", "\u1100\u1161", "\uAC00\u11A8", "\uAC01\u11A8", "\u1100\u1100\u1161", "\u1161\u11A8", "ㅎㅏㄴㄱㅡㄹ", "ﾡﾢﾣ", "\u115F\u1160", "\uA960\u1161 \uD7B0\uD7CB", "가각간갇갈감갑값갓갔강", "\uD7A3\uD7A4")
# CJK
add("你好，世界！", "我们在一起1234天了。", "中文English混合text，标点。", "日本語のテスト：カタカナ、ひらがな。", "ｶﾀｶﾅ ﾊﾞﾊﾟ", "か\u3099 は\u309A", "々〆〤〥", "𠀀𠀁 𪜶 \U00030000", "「引用」『二重』（括弧）", "全角　スペース　です", "一龥龦龻", "ㄅㄆㄇㄈ ㆍㆎ", "你" * 70, "漢字ㄎㄤˋ", "ㇰㇱ゛゜ヿ゠", "豈更車", "\u4E00\u3400\uFA0E", "、。〃", "！＂＃＄％＆", "ＡＢＣａｂｃ　０１２", "繁體中文與简体中文")
# right to left, joined scripts, Indic, South-East Asian
add("مرحبا بالعالم", "السلام عليكم، كيف حالك؟ ١٢٣", "שלום עולם! שָׁלוֹם", "\u202Bעברית\u202C \u200Fabc\u200E", "فارسی می‌خواهم", "اُردُو میں", "ܫܠܡܐ", "नमस्ते दुनिया", "क्षत्रिय श्री", "বাংলা ভাষা", "ਪੰਜਾਬੀ", "ગુજરાતી", "தமிழ் மொழி", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "ภาษาไทย สวัสดีครับ", "ພາສາລາວ", "မြန်မာဘာသာ", "ភាសាខ្មែរ 3 ៣៣៣", "བོད་སྐད་", "አማርኛ ፩፪", "ქართული", "Հայերեն", "ᠮᠣᠩᠭᠣᠯ", "ᐃᓄᒃᑎᑐᑦ", "ᛖᚴ ᚷᛖᛏ", "𐌰𐌱𐌲", "𓀀𓀁𓂀", "ⴰⵎⴰⵣⵉⵖ", "ꦧꦱꦗꦮ", "ᜊᜌ᜔ᜊᜌᜒᜈ᜔", "𞤀𞤣𞤤𞤢𞤥", "𐐀𐐨𐑏", "𑢠𑣀")
# emoji: joiners, skin tones, flags, keycaps, variation selectors, cut in the middle
add("🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅", "👨‍👩‍👧‍👦👩🏽‍💻🏳️‍🌈🏴\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "🇩🇪🇯🇵🇺", "❤ ❤️ ❤\uFE0E", "👍👍🏻👍🏿", "🫩🥲🩵", "\u200D\u200D👩", "👩\u200D", "\uFE0F\uFE0F", "#️⃣*️⃣0️⃣", "©®™️", "🤷🏽‍♀️ ¯\\_(ツ)_/¯", "😀" * 50, "🏽", "🧑🏾‍🤝‍🧑🏻")
# symbols and punctuation of all kinds
add("!@#$%^&*()_+-=[]{}|;':\",./<>?`~", "…—–‐‑‒―‖‗‘’‚‛“”„‟†‡•‣", "¡¿§¶«»‹›", "€£¥¢₹₿₽", "±×÷≠≤≥≈∞∑∏√∫∂∆", "←↑→↓↔⇒⇔", "─│┌┐└┘├┤▀▄█▌▐░▒▓", "♠♣♥♦♩♪♫", "★☆●○■□▲△", "⟨⟩⟦⟧⌈⌉⌊⌋", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β = ¬(¬α ∨ β)", "ℂℕℙℚℝℤ ℓ ℮ ℹ", "𝓗𝓮𝓵𝓵𝓸 𝔚𝔬𝔯𝔩𝔡 𝕏", "°C ℃ № ℡", "´ ` ˆ ˜ ¨ ¸", "‰ ‱ ′ ″ ‴", "⁰¹²³ ₀₁₂₃", "--- *** ___ ===", "a-b a_b a.b a/b a\\b a@b a#b a$b", "$100 €50 £20 50%", "<<<<<>>>>>", "?!?!?!...", "(((((((((())))))))))", "\u061D\u2E43\u2E52\u1B7D\u166D \U00011660 x", ">>> x = 1", "a⁄b a∕b", "\u00B7\u0387\u30FB\uFF65")
# controls, formats, private use, the ends of planes, non-characters, neighbours of surrogates
add(*[chr(c) for c in range(0, 9)], "\x00\x00a\x00", "\x7F\x80\x9F", "\x1B[31mred\x1B[0m", "\uD7FF\uE000", "\uFDD0\uFDEF", "\uFFFE\uFFFF", "\U0001FFFE\U0010FFFF", "\U0010FFFD a \U000F0000", "\uE000\uF8FF \U00100000", "\uFFF9\uFFFA\uFFFB\uFFFC\uFFFD", "\u2066a\u2069\u061C\u180E", "\U000E0001\U000E0020\U000E007F", "a\u00ADb", "\uFEFFBOM", "x\u2061y\u2062z", "\u0600\u0601\u06DD 1", "\u070F \u08E2 \U000110BD", "\u0378\u0379 \U0002FFFF unassigned", "\U00010EFC \u0897", "\U0001CCF0\U0001CCF9 \U00016D40")
# what looks like markers but is text
add("<|im_start", "<|", "|>", "< |im_end|>", "<im_end>", "[/INS", "<s", "s>", "<unk", "<0x0A>", "<0xFF> <0x20>", "\u2581", "\u2581\u2581\u2581", "a\u2581b \u2581 c", "\u0120hello \u010A \u0100\u0143", "Ġ Ċ ĉ ł õ ÿ ÷ À Á", "<html><body class=\"x\"><h1>Title</h1><table><tr><td>1</td></tr></table></body></html>", "<strong>a</strong> <s>b</s>", "[multimodal] [Multi]", "<bbox> <start of turn>")
# code and prose
add("def f(x):\n    return x**2 + 1  # square\n\n\nclass A(B):\n\tpass\n", "for (int i = 0; i < n; ++i) { a[i] += b[i] * c; }", "SELECT * FROM t WHERE a='x''y' AND b >= 10;", "{\"key\": [1, 2.5, null, true], \"s\": \"\\u00e9\\n\"}", "if(a&&b||!c){return(a?b:c);}", "#include <stdio.h>\r\nint main(void)\r\n{\r\n\treturn 0;\r\n}\r\n", "https://example.com/path?q=1&r=%20#frag", "user.name+tag@example.co.uk", "C:\\Users\\name\\file.txt", "camelCase PascalCase snake_case kebab-case SCREAMING_SNAKE", "HTMLParser XMLHttpRequest iPhone eBay McDonald", "```python\nprint('hi')\n```", "| a | b |\n|---|---|\n| 1 | 2 |\n", "\\frac{1}{2}\\alpha_{ij}^{2}", "\tif x:\n\t\ty\n    z\n", "The quick brown fox jumps over the lazy dog.", "Mr. O'Neill's e-mail wasn't read at 3:45 p.m., was it?", "supercalifragilisticexpialidocious antidisestablishmentarianism", "lorem ipsum dolor sit amet, consectetur adipiscing elit", "Ça va? Où êtes-vous? L'été, c'est génial.", "Der Übermut der Straßenbahnfahrer", "¿Qué tal, señor? ¡Olé!", "word" * 60, "a" * 300, "ab" * 150, "A" * 64 + "b" * 64, "aB" * 40, "hello" + "o" * 100, "xyz" * 30 + "\n", "LoReM IpSuM", "0123456789abcdef" * 8)
# at random: scripts and spaces mixed without sense
ALPHABETS = ["abcdefghijklmnopqrstuvwxyz", "ABCXYZ", "0123456789", " ", " ", "\n\r\t ", "'\u2019", ".,;:!?-_/\\|<>[]{}()", "éèüñçø", "\u0301\u0308\u0327\u0323", "абвгд", "αβγδ", "中文字漢", "かなカナ", "한국어\u1100\u1161\u11A8", "אבג", "ابج", "कखग\u094D\u093F", "ไทย", "😀🏽\u200D\uFE0F🇩", "".join(SPACES), "".join(LIKE_SPACES), "²½Ⅷ①", "€±∑←", "\u2581Ġ", "\x00\x01\x7F"]
for i in range(140):
    pick = R.sample(ALPHABETS, R.randint(2, 7))
    add("".join(R.choice(R.choice(pick)) for _ in range(R.randint(3, 45))))
for i in range(60):
    out = []
    while len(out) < 12:
        c = R.randrange(0x110000) if R.random() < 0.3 else R.randrange(0x3000)
        if not 0xD800 <= c < 0xE000:
            out.append(chr(c))
    add("".join(out))

if __name__ == "__main__":
    T = list(dict.fromkeys(T))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "texts.jsonl")
    with open(path, "w") as f:
        for t in T:
            f.write(json.dumps(t) + "\n")
    print(f"{len(T)} texts, {sum(len(t.encode()) for t in T)} bytes of UTF-8")
