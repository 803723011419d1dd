"""Which class of transformers a tokenizer folder is for, as `AutoTokenizer` decides it. Tables and one function.

It matters because some classes build normalizer, pre-tokenizer and decoder anew and take only the vocabulary
from `tokenizer.json`. Tests hold the tables equal to the installed transformers.
"""

from __future__ import annotations

from collections.abc import Mapping

GENERIC = "TokenizersBackend"  # takes tokenizer.json as it stands
_GENERIC_NAMES = frozenset({GENERIC, "PythonBackend", "PreTrainedTokenizer"})

# The class that goes with a model's type; for types that are not here, none does.
OF_MODEL: Mapping[str, str] = {
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "mistral": GENERIC,
    "gpt2": "GPT2Tokenizer",
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
}
# Types whose folders often name a wrong class: theirs is taken whatever the folder says.
DECIDED_BY_MODEL = frozenset({"qwen2"})
# Reads its own vocabulary (tekken.json) where it can, so that a folder's byte-level file is not looked at.
MISTRAL = frozenset({"mistral"})

# Every other class of transformers has parts of its own. A name that is not here is no class: generic.
_OTHERS = """
    AlbertTokenizer AutoTokenizer BarthezTokenizer BartphoTokenizer BasicTokenizer BertGenerationTokenizer
    BertJapaneseTokenizer BertweetTokenizer BigBirdTokenizer BioGptTokenizer BlenderbotSmallTokenizer
    BlenderbotTokenizer ByT5Tokenizer CLIPTokenizer CTRLTokenizer CamembertTokenizer CanineTokenizer
    CharacterTokenizer ClvpTokenizer CodeGenTokenizer CodeLlamaTokenizer CohereTokenizer CpmAntTokenizer
    CpmTokenizer DPRContextEncoderTokenizer DPRQuestionEncoderTokenizer DPRReaderTokenizer DebertaTokenizer
    DebertaV2Tokenizer DiaTokenizer EsmTokenizer EsmcTokenizer FNetTokenizer FSMTTokenizer
    FastSpeech2ConformerTokenizer FlaubertTokenizer FunnelTokenizer GPTNeoXJapaneseTokenizer GPTSw3Tokenizer
    HerbertTokenizer LasrTokenizer LayoutLMv2Tokenizer LayoutLMv3Tokenizer LayoutXLMTokenizer
    LukeTokenizer M2M100Tokenizer MBart50Tokenizer MBartTokenizer MLukeTokenizer MPNetTokenizer MarianTokenizer
    MarkupLMTokenizer MecabTokenizer MgpstrTokenizer MyT5Tokenizer NllbTokenizer NougatTokenizer
    OpenAIGPTTokenizer PLBartTokenizer ParakeetTokenizer PegasusTokenizer PerceiverTokenizer PhobertTokenizer
    Pop2PianoTokenizer ProphetNetTokenizer Qwen3_5Tokenizer RagTokenizer ReformerTokenizer RemBertTokenizer
    RoCBertTokenizer RoFormerTokenizer SeamlessM4TTokenizer Siglip2Tokenizer SiglipTokenizer
    Speech2TextTokenizer SpeechT5Tokenizer SplinterTokenizer T5Tokenizer TapasTokenizer Tipsv2Tokenizer
    UdopTokenizer VideoPrismTokenizer VitsTokenizer Wav2Vec2CTCTokenizer Wav2Vec2PhonemeCTCTokenizer
    WhisperTokenizer WordpieceTokenizer XGLMTokenizer XLMRobertaTokenizer XLMTokenizer XLNetTokenizer
"""
OTHERS = frozenset(_OTHERS.split())
# Other names of the same parts.
SAME_AS: Mapping[str, str] = {
    "BartTokenizer": "RobertaTokenizer",
    "LEDTokenizer": "RobertaTokenizer",
    "MvpTokenizer": "RobertaTokenizer",
    "ConvBertTokenizer": "BertTokenizer",
    "DistilBertTokenizer": "BertTokenizer",
    "LxmertTokenizer": "BertTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
    "SqueezeBertTokenizer": "BertTokenizer",
}
# Those whose parts `stock_parts` builds.
BUILT = frozenset(
    {
        "BertTokenizer",
        "GPT2Tokenizer",
        "GPTNeoXTokenizer",
        "GemmaTokenizer",
        "LlamaTokenizer",
        "Qwen2Tokenizer",
        "RobertaTokenizer",
    }
)


def stock_class(model_type: str | None, declared: str | None, *, byte_level: bool) -> str:
    """`GENERIC`, one of `BUILT`, or one of `OTHERS`.

    `declared` is `tokenizer_class` of `tokenizer_config.json`, else of `config.json`. `byte_level`: whether
    `tokenizer.json` has a ByteLevel part.
    """
    of_model = OF_MODEL.get(model_type or "")
    if declared is None:
        return of_model or GENERIC
    declared = declared.removesuffix("Fast")
    if declared == "LlamaTokenizer" and byte_level and model_type not in MISTRAL | DECIDED_BY_MODEL:
        return GENERIC  # Llama 3 names this class, whose parts are not byte-level
    if of_model == GENERIC:
        return GENERIC
    if of_model is not None and of_model != declared and model_type in DECIDED_BY_MODEL:
        declared = of_model
    declared = SAME_AS.get(declared, declared)
    return declared if declared in BUILT | OTHERS else GENERIC
